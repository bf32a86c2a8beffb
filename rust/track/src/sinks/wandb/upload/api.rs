//! The requests of W&B's service, and what an answer means for the next one.

use super::super::settings::Server;
use crate::time::retry_after;
use reqwest::{
    StatusCode,
    blocking::{Client, RequestBuilder, Response},
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::{Map, Value, json};
use std::{fs::File, io, path::Path, time::Duration};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of an answer that a message quotes.
const QUOTED: usize = 200;

/// Why a request did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// The same request may succeed later; not before `after`, if the service says so.
    Again { after: Option<Duration>, reason: String },
    /// The service refuses it.
    Refused { status: Option<u16>, reason: String },
}

impl Failure {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Again { reason, .. } | Self::Refused { reason, .. } => reason,
        }
    }
}

/// The service of one server.
#[derive(Debug)]
pub(super) struct Api {
    http: Client,
    server: Server,
}

/// A run as the service knows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Bucket {
    /// Its id in the service's storage.
    pub(super) storage_id: String,
    /// `{key: {"value": v}}`.
    pub(super) config: Map<String, Value>,
    pub(super) summary: Map<String, Value>,
    pub(super) num_history: u64,
    pub(super) num_events: u64,
    pub(super) num_lines: u64,
    /// `_step` of its last row.
    pub(super) last_step: Option<u64>,
    /// `_timestamp` of its last system metrics.
    pub(super) last_event: Option<f64>,
}

/// Where a run is, as the service names it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) storage_id: String,
    pub(super) entity: String,
    pub(super) project: String,
    pub(super) run: String,
}

/// Where the files of a run go.
pub(super) struct UploadUrls {
    pub(super) headers: Vec<String>,
    /// Name and URL of each.
    pub(super) files: Vec<(String, String)>,
}

impl Api {
    /// # Errors
    /// The HTTP client cannot be set up.
    pub(super) fn new(server: Server) -> Result<Self, Failure> {
        let agent = concat!("hlrp/", env!("CARGO_PKG_VERSION"));
        let client = Client::builder().user_agent(agent).connect_timeout(CONNECT_TIMEOUT).build();
        let refused = |error: reqwest::Error| Failure::Refused { status: None, reason: error.to_string() };
        Ok(Self { http: client.map_err(refused)?, server })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Entity of the user that the key belongs to.
    pub(super) fn viewer(&self, timeout: Duration) -> Result<String, Failure> {
        let answer = self.graphql("Viewer", "query Viewer { viewer { entity } }", &json!({}), timeout)?;
        match &answer["viewer"] {
            Value::Null => {
                Err(Failure::Refused { status: Some(401), reason: "the service does not know the key".to_owned() })
            }
            viewer => Ok(viewer["entity"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// What the service has of a run; none where it has none.
    pub(super) fn resume_status(
        &self,
        entity: Option<&str>,
        project: &str,
        run: &str,
    ) -> Result<Option<Bucket>, Failure> {
        const QUERY: &str = "query RunResumeStatus($project: String, $entity: String, $name: String!) { \
            model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { \
            id config summaryMetrics historyLineCount eventsLineCount logLineCount historyTail eventsTail } } }";
        let variables = json!({ "project": project, "entity": entity, "name": run });
        let answer = self.graphql("RunResumeStatus", QUERY, &variables, self.server.graphql_timeout)?;
        let bucket = &answer["model"]["bucket"];
        if bucket.is_null() {
            return Ok(None);
        }
        let object = |key: &str| match serde_json::from_str(bucket[key].as_str().unwrap_or_default()) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        };
        // A list of lines as text, the last one last.
        let tail = |key: &str| {
            let lines: Vec<String> = serde_json::from_str(bucket[key].as_str()?).ok()?;
            serde_json::from_str::<Value>(lines.last()?).ok()
        };
        let summary = object("summaryMetrics");
        let count = |key: &str| bucket[key].as_u64().unwrap_or_default();
        let num_history = count("historyLineCount");
        let of_row = tail("historyTail").and_then(|row| row["_step"].as_u64());
        let last_step = of_row.or_else(|| summary.get("_step")?.as_u64()).filter(|_| num_history > 0);
        Ok(Some(Bucket {
            storage_id: bucket["id"].as_str().unwrap_or_default().to_owned(),
            config: object("config"),
            num_history,
            num_events: count("eventsLineCount"),
            num_lines: count("logLineCount"),
            last_step,
            last_event: tail("eventsTail").and_then(|event| event["_timestamp"].as_f64()),
            summary,
        }))
    }

    /// Creates or changes a run; `variables` are those of the mutation. Returns its place, and whether it is new.
    pub(super) fn upsert(&self, variables: &Value) -> Result<(Place, bool), Failure> {
        const QUERY: &str = "mutation UpsertBucket($id: String, $name: String, $project: String, $entity: String, \
            $groupName: String, $displayName: String, $jobType: String, $notes: String, $tags: [String!], \
            $config: JSONString, $host: String, $program: String, $repo: String, $commit: String) { \
            upsertBucket(input: { id: $id, name: $name, modelName: $project, entityName: $entity, \
            groupName: $groupName, displayName: $displayName, jobType: $jobType, notes: $notes, tags: $tags, \
            config: $config, host: $host, jobProgram: $program, jobRepo: $repo, commit: $commit }) { \
            bucket { id name project { name entity { name } } } inserted } }";
        let answer = self.graphql("UpsertBucket", QUERY, variables, self.server.graphql_timeout);
        let answer = answer.map_err(|failure| match failure {
            // Two requests at once: the service asks to repeat it.
            Failure::Refused { status: Some(409), reason } => Failure::Again { after: None, reason },
            other => other,
        })?;
        let payload = &answer["upsertBucket"];
        let bucket = &payload["bucket"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let place = || {
            Some(Place {
                storage_id: text(&bucket["id"])?,
                entity: text(&bucket["project"]["entity"]["name"])?,
                project: text(&bucket["project"]["name"])?,
                run: text(&bucket["name"])?,
            })
        };
        let place = place().ok_or_else(|| unexpected(&answer.to_string()))?;
        Ok((place, payload["inserted"] == true))
    }

    /// Asks where the files `names` of a run go.
    pub(super) fn create_files(&self, place: &Place, names: &[&str]) -> Result<UploadUrls, Failure> {
        const QUERY: &str = "mutation CreateRunFiles($entity: String!, $project: String!, $run: String!, $files: [String!]!) { \
            createRunFiles(input: { entityName: $entity, projectName: $project, runName: $run, files: $files }) { \
            uploadHeaders files { name uploadUrl } } }";
        let Place { entity, project, run, .. } = place;
        let variables = json!({ "entity": entity, "project": project, "run": run, "files": names });
        let answer = self.graphql("CreateRunFiles", QUERY, &variables, self.server.graphql_timeout)?;
        let answer = &answer["createRunFiles"];
        let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(UploadUrls {
            headers: list("uploadHeaders").iter().filter_map(text).collect(),
            files: list("files")
                .iter()
                .filter_map(|file| Some((text(&file["name"])?, text(&file["uploadUrl"])?)))
                .collect(),
        })
    }

    /// Uploads a file to a URL that the service has signed; it gets no credentials.
    pub(super) fn put(&self, url: &str, headers: &[String], path: &Path) -> Result<(), Failure> {
        let unreadable = |error: io::Error| Failure::Refused {
            status: None,
            reason: format!("cannot read {}: {error}", path.display()),
        };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut request = self.http.put(url).timeout(self.server.file_timeout).header(CONTENT_LENGTH, length);
        for (name, value) in headers.iter().filter_map(|header| header.split_once(':')) {
            request = request.header(name.trim(), value.trim());
        }
        let body = reqwest::blocking::Body::sized(file, length);
        answered(request.body(body).send()).map(|_| ())
    }

    /// Sends a request with data; returns whether a user has asked to stop the run.
    pub(super) fn stream(&self, place: &Place, body: String) -> Result<bool, Failure> {
        let mut url = reqwest::Url::parse(&self.server.base_url)
            .map_err(|error| Failure::Refused { status: None, reason: error.to_string() })?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["files", &place.entity, &place.project, &place.run, "file_stream"]);
        }
        let request = self.http.post(url).timeout(self.server.stream_timeout).header(CONTENT_TYPE, "application/json");
        let text = self.text(request.body(body))?;
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(answer)) if !answer.contains_key("error") => {
                Ok(answer.get("stopped") == Some(&true.into()))
            }
            _ => Err(unexpected(&text)),
        }
    }

    fn graphql(&self, operation: &str, query: &str, variables: &Value, timeout: Duration) -> Result<Value, Failure> {
        let body = json!({ "operationName": operation, "query": query, "variables": variables });
        let url = format!("{}/graphql", self.server.base_url);
        let mut request = self.http.post(url).timeout(timeout).header(CONTENT_TYPE, "application/json");
        for (name, value) in &self.server.user {
            if let Some(value) = value {
                request = request.header(*name, value);
            }
        }
        let text = self.text(request.body(body.to_string()))?;
        let answer: Value = serde_json::from_str(&text).map_err(|_| unexpected(&text))?;
        match (error_of(&answer), answer.get("data")) {
            (Some(reason), _) => Err(Failure::Refused { status: Some(200), reason }),
            (None, Some(data)) if data.is_object() => Ok(data.clone()),
            _ => Err(unexpected(&text)),
        }
    }

    fn text(&self, request: RequestBuilder) -> Result<String, Failure> {
        let request = match &self.server.key {
            Some(key) => request.basic_auth("api", Some(key.reveal())),
            None => request,
        };
        answered(request.send())?.text().map_err(|error| again(&error))
    }
}

/// A successful answer. The service is asked again after errors of the network and those that pass.
fn answered(result: reqwest::Result<Response>) -> Result<Response, Failure> {
    let response = result.map_err(|error| again(&error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
    let text = response.text().unwrap_or_default();
    let said = serde_json::from_str(&text).ok().and_then(|answer| error_of(&answer));
    let reason = said.map_or_else(|| status.to_string(), |said| format!("{status}: {said}"));
    let is_passing = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
        || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED);
    Err(match is_passing {
        true => Failure::Again { after, reason },
        false => Failure::Refused { status: Some(status.as_u16()), reason },
    })
}

/// The URL of a file is signed: no message has it.
fn again(error: &reqwest::Error) -> Failure {
    let mut reason = if error.is_timeout() { "no answer in time".to_owned() } else { "no connection".to_owned() };
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if source.is_some_and(|error| error.source().is_none()) {
            reason = format!("{reason} ({error})");
        }
        source = error.source();
    }
    Failure::Again { after: None, reason }
}

fn unexpected(text: &str) -> Failure {
    let quoted: String = text.chars().take(QUOTED).collect();
    Failure::Again { after: None, reason: format!("an answer that is not W&B's: {quoted}") }
}

/// The first error of an answer.
fn error_of(answer: &Value) -> Option<String> {
    let first = answer.get("errors")?.as_array()?.first()?;
    Some(first["message"].as_str().unwrap_or("an error without a message").to_owned())
}
