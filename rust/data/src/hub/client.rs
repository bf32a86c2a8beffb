//! Requests to the Hub: tokens, redirects, and what an answer means for the next try.

use super::{error::HubError, settings::HubSettings};
use hlrp_schema::hub::{Pinned, RepoKind};
use hlrp_track::time::retry_after;
use reqwest::{
    StatusCode, Url,
    blocking::{Client, Response},
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, LINK, LOCATION, RANGE,
        RETRY_AFTER,
    },
    redirect::Policy,
};
use std::{error::Error, io::Read, ops::Range, thread, time::Duration};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without an answer, or without a further byte of one.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries in a row without a byte before an address counts as unreachable.
const MAX_TRIES: u32 = 6;
/// The pause after the first failed try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The same where the server has had too many requests and does not say how long to wait, and the longest of these pauses.
const FIRST_LIMITED_PAUSE: Duration = Duration::from_secs(3);
const MAX_LIMITED_PAUSE: Duration = Duration::from_secs(30);
/// A server that asks for a longer pause is not waited for.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Redirects that are followed.
const MAX_REDIRECTS: usize = 8;
/// Largest answer that is read as text.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Characters of an answer that a message quotes.
const QUOTED: usize = 200;

/// Why a try did not succeed.
pub(super) enum Failure {
    /// The same request may succeed later; not before `after`, if the server says so.
    Passing { after: Option<Duration>, reason: String },
    /// As before: there were too many requests.
    Limited { after: Option<Duration>, reason: String },
    /// The content has not as many bytes as were asked to be left out.
    Range,
    /// It will not.
    Final(HubError),
}

/// An answer with content.
pub(super) struct Answer {
    pub(super) response: Response,
    /// The content's name on the Hub: its digest.
    pub(super) etag: Option<String>,
    /// Size of the whole content, where an answer says it.
    pub(super) size: Option<u64>,
    /// First byte of it in the answer; 0 where the server sends all.
    pub(super) start: u64,
    /// The address that answered.
    pub(super) url: Url,
}

/// The Hub, asked by many threads at once.
pub struct Hub {
    http: Client,
    pub(super) settings: HubSettings,
}

/// Counts tries in a row that fail.
#[derive(Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// Something has arrived.
    pub(super) fn progress(&mut self) {
        self.0 = 0;
    }

    /// Waits before the next try after a failure that may pass.
    ///
    /// # Errors
    /// It does not pass, or too many tries have failed.
    pub(super) fn failed(&mut self, url: &Url, failure: Failure) -> Result<(), HubError> {
        let doubled = 2u32.pow(self.0);
        let (after, reason, own_pause) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { after, reason } => (after, reason, FIRST_PAUSE * doubled),
            Failure::Limited { after, reason } => {
                (after, reason, (FIRST_LIMITED_PAUSE * doubled).min(MAX_LIMITED_PAUSE))
            }
            Failure::Range => (None, "it is shorter than what was there of it".to_owned(), FIRST_PAUSE * doubled),
        };
        self.0 += 1;
        let pause = after.unwrap_or(own_pause);
        if self.0 >= MAX_TRIES || pause > MAX_PAUSE {
            let asks = format!("{reason}, and the server asks to wait {} s", pause.as_secs());
            let reason = if pause > MAX_PAUSE { asks } else { reason };
            return Err(HubError::Unreachable { url: shown(url), reason, num_tries: self.0 });
        }
        tracing::warn!("{}: {reason}; next try in {:.1} s", shown(url), pause.as_secs_f64());
        thread::sleep(pause);
        Ok(())
    }
}

impl Hub {
    /// # Errors
    /// The endpoint is not an address, or the HTTP client cannot be set up.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let bad = |reason: String| HubError::Refused {
            url: settings.endpoint.clone(),
            reason,
            hint: "set HF_ENDPOINT to an address such as https://huggingface.co, or unset it".to_owned(),
        };
        if settings.url(&[]).is_none() {
            return Err(bad("HF_ENDPOINT is not an HTTP address".to_owned()));
        }
        let agent = concat!("hlrp/", env!("CARGO_PKG_VERSION"));
        let builder = Client::builder().user_agent(agent).connect_timeout(CONNECT_TIMEOUT).timeout(STALL_TIMEOUT);
        let http = builder.redirect(Policy::none()).build().map_err(|error| bad(error.to_string()))?;
        Ok(Self { http, settings })
    }

    /// The Hub of the environment.
    ///
    /// # Errors
    /// As [`Hub::new`].
    pub fn of_environment() -> Result<Self, HubError> {
        Self::new(HubSettings::of_environment())
    }

    /// The address below the endpoint with these parts.
    pub(super) fn url(&self, parts: &[&str]) -> Result<Url, HubError> {
        self.settings.url(parts).ok_or_else(|| HubError::Refused {
            url: self.settings.endpoint.clone(),
            reason: "it is not an HTTP address".to_owned(),
            hint: "correct HF_ENDPOINT".to_owned(),
        })
    }

    /// The address of a file of a repository.
    pub(super) fn file_url(&self, kind: RepoKind, pinned: &Pinned, path: &str) -> Result<Url, HubError> {
        let (owner, name) = pinned.repo_id.split_once('/').unwrap_or((&pinned.repo_id, ""));
        // Models have no word before their names.
        let kind = Some(kind.plural()).filter(|_| kind != RepoKind::Model);
        let repository = kind.into_iter().chain([owner, name, "resolve", &pinned.commit]);
        self.url(&repository.chain(path.split('/')).collect::<Vec<_>>())
    }

    /// An address of the API about a repository.
    pub(super) fn api_url(&self, kind: RepoKind, repo_id: &str, question: [&str; 2]) -> Result<Url, HubError> {
        let (owner, name) = repo_id.split_once('/').unwrap_or((repo_id, ""));
        let [what, revision] = question;
        self.url(&["api", kind.plural(), owner, name, what, revision])
    }

    /// Reads an answer of the API as text, and the address of its next page.
    ///
    /// # Errors
    /// The Hub refuses it or cannot be reached.
    pub(super) fn text(&self, url: &Url) -> Result<(String, Option<Url>), HubError> {
        let mut tries = Tries::default();
        loop {
            let read = self.get(url, None).and_then(|answer| {
                let next = next_page(answer.response.headers(), &answer.url);
                let next = next.map(|next| self.own_page(url, next)).transpose()?;
                let mut text = String::new();
                let read = answer.response.take(MAX_TEXT_BYTES).read_to_string(&mut text);
                read.map_err(|error| Failure::Passing { after: None, reason: cut_off(&error) })?;
                Ok((text, next))
            });
            match read {
                Ok(read) => return Ok(read),
                Err(failure) => tries.failed(url, failure)?,
            }
        }
    }

    /// Asks for content, all of it or a range of bytes (an open end is `u64::MAX`). Redirects are followed; the token goes to the endpoint alone.
    pub(super) fn get(&self, url: &Url, range: Option<Range<u64>>) -> Result<Answer, Failure> {
        let mut at = url.clone();
        let (mut etag, mut linked_size) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.http.get(at.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some(token) = self.settings.token.as_ref().filter(|_| self.is_own(&at)) {
                request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
            }
            if let Some(Range { start, end }) = &range {
                let last = if *end == u64::MAX { String::new() } else { (end - 1).to_string() };
                request = request.header(RANGE, format!("bytes={start}-{last}"));
            }
            let response = request.send().map_err(no_answer)?;
            let (status, headers) = (response.status(), response.headers());
            if self.is_own(&at) {
                let named = text_of(headers, "x-linked-etag").or_else(|| text_of(headers, ETAG.as_str()));
                etag = named.map(digest_of).or(etag);
                linked_size = text_of(headers, "x-linked-size").and_then(|size| size.parse().ok()).or(linked_size);
            }
            if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                at = self.next_stop(&at, headers)?;
                continue;
            }
            if !status.is_success() {
                return Err(self.refusal(url, response));
            }
            let (start, total) = match (status, text_of(headers, CONTENT_RANGE.as_str())) {
                (StatusCode::PARTIAL_CONTENT, Some(said)) => content_range(said).ok_or_else(|| Failure::Passing {
                    after: None,
                    reason: format!("an unreadable Content-Range {said:?}"),
                })?,
                _ => (0, text_of(headers, CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok())),
            };
            return Ok(Answer { etag, size: linked_size.or(total), start, url: at, response });
        }
        Err(self.refused(url, "too many redirects".to_owned(), "check HF_ENDPOINT".to_owned()))
    }

    /// The next page of a list, after `page`: a mirror may name the same address of the server that it mirrors.
    fn own_page(&self, page: &Url, next: Url) -> Result<Url, Failure> {
        if self.is_own(&next) {
            return Ok(next);
        }
        if !page.path().ends_with(next.path()) {
            let reason = format!("the list goes on at {}, which is not below HF_ENDPOINT", shown(&next));
            return Err(self.refused(page, reason, "check HF_ENDPOINT".to_owned()));
        }
        let mut own = page.clone();
        own.set_query(next.query());
        Ok(own)
    }

    /// Whether an address is of the endpoint.
    fn is_own(&self, url: &Url) -> bool {
        Url::parse(&self.settings.endpoint).is_ok_and(|endpoint| endpoint.origin() == url.origin())
    }

    /// Where a redirect leads.
    fn next_stop(&self, from: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
        let next = text_of(headers, LOCATION.as_str()).and_then(|location| from.join(location).ok());
        let next = next.filter(|next| next.scheme() == "https" || (next.scheme() == "http" && from.scheme() == "http"));
        next.ok_or_else(|| {
            let reason = "it redirects to no address, or to one that is not encrypted".to_owned();
            self.refused(from, reason, "check HF_ENDPOINT".to_owned())
        })
    }

    fn refused(&self, url: &Url, reason: String, hint: String) -> Failure {
        Failure::Final(HubError::Refused { url: shown(url), reason, hint })
    }

    /// What an answer without success means.
    fn refusal(&self, url: &Url, response: Response) -> Failure {
        let status = response.status();
        let after = text_of(response.headers(), RETRY_AFTER.as_str()).and_then(retry_after);
        let after = after.or_else(|| text_of(response.headers(), "ratelimit").and_then(reset_of));
        let code = text_of(response.headers(), "x-error-code").unwrap_or_default().to_owned();
        let said = text_of(response.headers(), "x-error-message").map(str::to_owned);
        let said = said.or_else(|| {
            let mut text = String::new();
            response.take(QUOTED as u64 * 4).read_to_string(&mut text).ok()?;
            let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
            answer["error"].as_str().map(str::to_owned)
        });
        let said = said.map(|said| said.chars().take(QUOTED).collect::<String>());
        let reason = said.map_or_else(|| status.to_string(), |said| format!("{status}: {said}"));
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Failure::Limited { after, reason };
        }
        let is_passing = status == StatusCode::REQUEST_TIMEOUT
            || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED);
        if is_passing {
            return Failure::Passing { after, reason };
        }
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Failure::Range;
        }
        let has_token = self.settings.token.is_some();
        let hint = match (status, code.as_str()) {
            (StatusCode::UNAUTHORIZED, "GatedRepo") if !has_token => {
                "it is gated: accept the terms on its page, then set HF_TOKEN, or log in with `hf auth login`"
            }
            (StatusCode::UNAUTHORIZED, _) if has_token => {
                "check the name and --repo-type; if they are right, the token in HF_TOKEN, or of `hf auth login`, is not valid or may not read it"
            }
            (StatusCode::UNAUTHORIZED, _) => {
                "check the name and --repo-type; if it is private or gated, set HF_TOKEN, or log in with `hf auth login`"
            }
            (StatusCode::FORBIDDEN, _) => {
                "accept the terms on its page with the account of the token, or use a token that may read it"
            }
            (StatusCode::NOT_FOUND, "RevisionNotFound") => {
                "check --revision: the repository has no such branch, tag or commit"
            }
            (StatusCode::NOT_FOUND, "EntryNotFound") => "the revision has no such file; download it again",
            (StatusCode::NOT_FOUND, _) => "check the name, --repo-type and --revision, and HF_ENDPOINT",
            _ => "check HF_ENDPOINT",
        };
        self.refused(url, reason, hint.to_owned())
    }
}

/// An address as messages show it: without its query, which may be signed, and without a user's name or password.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // An address that cannot have a user has none.
    let _ = (url.set_username(""), url.set_password(None));
    url.to_string()
}

/// A connection that ends before the content does.
pub(super) fn cut_off(error: &std::io::Error) -> String {
    format!("the connection broke ({error})")
}

/// A request without an answer. The address of the error may be signed: no message has it.
fn no_answer(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut reason = if error.is_timeout() { "no answer in time".to_owned() } else { "no connection".to_owned() };
    let deepest = std::iter::successors(error.source(), |&cause| cause.source()).last();
    if let Some(cause) = deepest {
        reason = format!("{reason} ({cause})");
    }
    Failure::Passing { after: None, reason }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The digest in an ETag, which may be weak and is in quotes.
fn digest_of(etag: &str) -> String {
    etag.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

/// When there may be requests again, in a `RateLimit` header such as `"api";r=0;t=55`.
fn reset_of(said: &str) -> Option<Duration> {
    let seconds = said.split(';').find_map(|part| part.trim().strip_prefix("t="))?.parse().ok()?;
    Some(Duration::from_secs(u64::max(seconds, 1)))
}

/// First byte and size of `bytes 5-9/10`; the size is unknown in `bytes 5-9/*`.
fn content_range(said: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = said.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

/// The address of the next page in `<…>; rel="next"`.
fn next_page(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let links = text_of(headers, LINK.as_str())?.split(',');
    let next =
        links.filter(|link| link.contains("rel=\"next\"")).find_map(|link| link.split_once('<')?.1.split_once('>'));
    from.join(next?.0).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn headers_are_read_as_servers_write_them() {
        assert_eq!(digest_of("W/\"abc\""), "abc");
        assert_eq!(digest_of("\"abc\""), "abc");
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        let mut headers = HeaderMap::new();
        headers.insert(LINK, "<https://a.b/tree?cursor=x%3D>; rel=\"next\"".parse().unwrap());
        let from = Url::parse("https://a.b/").unwrap();
        assert_eq!(next_page(&headers, &from).unwrap().as_str(), "https://a.b/tree?cursor=x%3D");
    }

    #[test]
    fn a_limited_client_waits_as_long_as_the_server_says_or_a_minute_in_all() {
        assert_eq!(reset_of("\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
        assert_eq!(reset_of("\"api\"; r=0; t=0"), Some(Duration::from_secs(1)));
        assert_eq!(reset_of("\"api\";r=0"), None);
        let pauses = (0..MAX_TRIES - 1).map(|tries| (FIRST_LIMITED_PAUSE * 2u32.pow(tries)).min(MAX_LIMITED_PAUSE));
        assert_eq!(pauses.sum::<Duration>(), Duration::from_secs(75));
    }

    #[test]
    fn a_list_goes_on_below_the_endpoint_or_is_refused() {
        let settings = HubSettings { endpoint: "http://mirror/hf".to_owned(), ..HubSettings::of_environment() };
        let hub = Hub::new(settings).unwrap();
        let page = Url::parse("http://mirror/hf/api/datasets/a/b/tree/main?recursive=true").unwrap();
        let after = |next: &str| hub.own_page(&page, Url::parse(next).unwrap());
        let of_hub = after("https://huggingface.co/api/datasets/a/b/tree/main?cursor=x");
        let wanted = Some("http://mirror/hf/api/datasets/a/b/tree/main?cursor=x".to_owned());
        assert_eq!(of_hub.ok().map(|url| url.to_string()), wanted);
        let Err(Failure::Final(error)) = after("https://elsewhere/list?cursor=x") else { panic!("it is followed") };
        assert!(error.to_string().contains("goes on at https://elsewhere/list, which is not below HF_ENDPOINT"));
    }

    #[test]
    fn an_address_is_shown_without_what_signs_it() {
        let url = Url::parse("https://me:secret@cdn.example/a/b?Signature=abc&Key=x#y").unwrap();
        assert_eq!(shown(&url), "https://cdn.example/a/b");
    }
}
