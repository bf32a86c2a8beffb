//! What the run is called on W&B, where it goes, and how often: `logging.wandb`, then the `WANDB_*` variables, then W&B's settings files.

use super::{
    credentials::{ApiKey, find_key},
    notice,
    session::Identity,
};
use crate::{TrackError, env};
use hlrp_config::Problem;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// W&B's own service.
const DEFAULT_BASE_URL: &str = "https://api.wandb.ai";
/// Longest name, group, job type and tag that the service takes, in characters.
const MAX_NAME: usize = 64;
/// The setting that switches W&B on.
pub(super) const USE_WANDB: &str = "logging.use_wandb";
/// Longest project.
const MAX_PROJECT: usize = 128;

/// Whether records are sent while the run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Online,
    Offline,
}

/// What a run whose id is given does when the service has, or lacks, a run of that id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resume {
    Allow,
    Must,
    Never,
}

/// `logging.wandb` as the configuration has it; null is "as the variable or the settings file says".
#[derive(Debug, Deserialize)]
struct Options {
    mode: Option<String>,
    project: Option<String>,
    entity: Option<String>,
    name: Option<String>,
    group: Option<String>,
    job_type: Option<String>,
    tags: Option<Vec<String>>,
    notes: Option<String>,
    dir: Option<PathBuf>,
    base_url: Option<String>,
    #[serde(flatten)]
    timing: Timing,
}

/// Intervals in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Timing {
    /// Between two samples of system metrics; none switches them off.
    pub(super) stats_interval_s: Option<f64>,
    /// Least time between two requests with data.
    pub(super) upload_interval_s: f64,
    /// A sign of life is sent when there was no request for so long.
    pub(super) heartbeat_interval_s: f64,
    /// First pause before a request is repeated; it doubles up to `retry_max_s`.
    pub(super) retry_min_s: f64,
    /// Longest pause before a request is repeated.
    pub(super) retry_max_s: f64,
    /// How long the end of a run waits until everything is sent.
    pub(super) finish_timeout_s: f64,
}

/// A W&B server, with the key that it gets.
#[derive(Debug, Clone)]
pub struct Server {
    /// Without a slash at the end.
    pub(super) base_url: String,
    /// None where nothing is sent.
    pub(super) key: Option<ApiKey>,
    /// Headers that attribute the run to a user.
    pub(super) user: [(&'static str, Option<String>); 2],
    /// Longest wait for the service before a training starts.
    pub(super) init_timeout: Duration,
    /// Longest wait for the upload of a file.
    pub(super) file_timeout: Duration,
    /// Longest wait for an answer to a GraphQL request.
    pub(super) graphql_timeout: Duration,
    /// Longest wait for an answer to a request with data.
    pub(super) stream_timeout: Duration,
}

/// How a run is recorded on W&B.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) mode: Mode,
    pub(super) server: Server,
    pub(super) project: String,
    pub(super) entity: Option<String>,
    pub(super) run_id: Option<String>,
    pub(super) resume: Resume,
    pub(super) name: Option<String>,
    pub(super) group: Option<String>,
    pub(super) job_type: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) notes: Option<String>,
    pub(super) dir: Option<PathBuf>,
    pub(super) host: Option<String>,
    /// The machine whose system metrics are recorded, where the run is on several.
    pub(super) node: Option<String>,
    pub(super) has_console: bool,
    pub(super) git: GitOptions,
    pub(super) timing: Timing,
}

/// What is sent about the repository.
#[derive(Debug, Clone)]
pub(super) struct GitOptions {
    pub(super) is_disabled: bool,
    pub(super) commit: Option<String>,
    pub(super) remote: Option<String>,
}

impl Settings {
    /// The settings of a run whose section `logging.wandb` is `options`; none where a variable switches W&B off.
    ///
    /// # Errors
    /// An invalid setting, or no credentials although the run is to be sent.
    pub fn resolve(options: &impl Serialize) -> Result<Option<Self>, Problem> {
        let value = serde_json::to_value(options).unwrap_or_default();
        if value.is_null() {
            let message = "this run was started by a version without a W&B client";
            return Err(Problem::new("logging.use_wandb", message, "set it to false, or start a new run"));
        }
        let options: Options = serde_json::from_value(value)
            .map_err(|error| Problem::new("logging.wandb", error.to_string(), "compare it with config/config.yaml"))?;
        Self::from(options, &SettingsFiles::read())
    }

    /// The settings of a run that starts, or of the run in `resume`: an unusable key is an error before anything is written.
    ///
    /// # Errors
    /// As [`Settings::resolve`], and what the service refuses.
    pub fn of_run(options: &impl Serialize, resume: Option<&Path>) -> Result<Option<Self>, TrackError> {
        let settings = Self::resolve(options)?;
        if let Some(settings) = &settings {
            settings.check_access(resume)?;
        }
        Ok(settings)
    }

    fn from(options: Options, files: &SettingsFiles) -> Result<Option<Self>, Problem> {
        let of = |typed: Option<String>, variable: &str, name: &str| {
            typed.or_else(|| env::get(variable)).or_else(|| files.get(name))
        };
        if env::get(env::WANDB_DISABLED).is_some_and(|value| is_true(&value)) {
            notice::inform(&format!("{} is set: nothing is recorded for W&B", env::WANDB_DISABLED));
            return Ok(None);
        }
        let mode = match of(options.mode, env::WANDB_MODE, "mode").as_deref() {
            None | Some("online" | "run") => Mode::Online,
            Some("offline" | "dryrun") => Mode::Offline,
            Some("disabled") => {
                notice::inform("the mode of W&B is 'disabled': nothing is recorded for it");
                return Ok(None);
            }
            Some(other) => {
                let message = format!("unknown mode '{other}' of W&B");
                let hint = format!("use online, offline or disabled, here or in {}", env::WANDB_MODE);
                return Err(Problem::new("logging.wandb.mode", message, hint));
            }
        };
        let base_url = of(options.base_url, env::WANDB_BASE_URL, "base_url");
        let server = Server::new(base_url, files, (mode == Mode::Online).then_some(USE_WANDB))?;
        let tags = options.tags.or_else(|| {
            let list = env::get(env::WANDB_TAGS).or_else(|| files.get("tags"))?;
            Some(list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
        });
        let mut timing = options.timing;
        if let Some(seconds) = env::get(env::WANDB_X_STATS_SAMPLING_INTERVAL) {
            timing.stats_interval_s = Some(seconds_of(env::WANDB_X_STATS_SAMPLING_INTERVAL, &seconds)?.as_secs_f64());
        }
        if env::get(env::WANDB_X_DISABLE_STATS).is_some_and(|value| is_true(&value)) {
            timing.stats_interval_s = None;
        }
        let settings = Self {
            mode,
            server,
            project: of(options.project, env::WANDB_PROJECT, "project").unwrap_or_else(|| "uncategorized".to_owned()),
            entity: of(options.entity, env::WANDB_ENTITY, "entity"),
            run_id: env::get(env::WANDB_RUN_ID),
            resume: resume()?,
            name: of(options.name, env::WANDB_NAME, "run_name"),
            group: of(options.group, env::WANDB_RUN_GROUP, "run_group"),
            job_type: of(options.job_type, env::WANDB_JOB_TYPE, "run_job_type"),
            tags: tags.unwrap_or_default(),
            notes: of(options.notes, env::WANDB_NOTES, "run_notes"),
            dir: options.dir.or_else(|| env::get(env::WANDB_DIR).map(PathBuf::from)),
            host: env::get(env::WANDB_HOST),
            node: None,
            has_console: env::get(env::WANDB_CONSOLE).as_deref() != Some("off"),
            git: GitOptions {
                is_disabled: env::get(env::WANDB_DISABLE_GIT).is_some_and(|value| is_true(&value)),
                commit: env::get(env::WANDB_GIT_COMMIT),
                remote: env::get(env::WANDB_GIT_REMOTE_URL),
            },
            timing,
        };
        settings.check_names()?;
        Ok(Some(settings))
    }

    /// Time between two samples of system metrics; none where there are none.
    pub fn stats_interval(&self) -> Option<Duration> {
        self.timing.stats_interval_s.map(Duration::from_secs_f64)
    }

    /// The run is on several machines, of which this one is `name`.
    pub fn name_node(&mut self, name: &str) {
        self.node = Some(name.to_owned());
    }

    /// The limits of the service, which would otherwise refuse the run when it has begun.
    fn check_names(&self) -> Result<(), Problem> {
        let at_most = |key: &str, variable: &str, value: Option<&String>, most: usize| match value {
            Some(value) if value.chars().count() > most => {
                let message = format!("{} characters, but W&B takes at most {most}", value.chars().count());
                Err(Problem::new(format!("logging.wandb.{key}"), message, format!("choose a shorter one ({variable})")))
            }
            _ => Ok(()),
        };
        at_most("name", env::WANDB_NAME, self.name.as_ref(), MAX_NAME)?;
        at_most("group", env::WANDB_RUN_GROUP, self.group.as_ref(), MAX_NAME)?;
        at_most("job_type", env::WANDB_JOB_TYPE, self.job_type.as_ref(), MAX_NAME)?;
        self.tags.iter().try_for_each(|tag| at_most("tags", env::WANDB_TAGS, Some(tag), MAX_NAME))?;
        at_most("project", env::WANDB_PROJECT, Some(&self.project), MAX_PROJECT)?;
        if self.project.contains(['/', '\\', '#', '?', '%', ':']) {
            let message = format!("'{}' is not a project of W&B", self.project);
            return Err(Problem::new("logging.wandb.project", message, r"choose one without / \ # ? % :"));
        }
        match &self.run_id {
            Some(id) if id.chars().count() > MAX_NAME || id.contains([':', ';', ',', '#', '?', '/', '\'']) => {
                let hint = "use letters and digits, or unset it for a new run";
                Err(Problem::new(env::WANDB_RUN_ID, format!("'{id}' is not the id of a W&B run"), hint))
            }
            _ => Ok(()),
        }
    }

    /// Asks the service whether it takes the key, so that a wrong one is noticed before the training starts or continues the run in `run_dir`.
    /// A service that cannot be reached is no error: what it should get is kept.
    ///
    /// # Errors
    /// The service refuses the key, the run of the given id must or must not exist, or the run in `run_dir` has another id.
    fn check_access(&self, run_dir: Option<&Path>) -> Result<(), TrackError> {
        let known = run_dir.map(Identity::read).transpose()?.flatten();
        if let (Some(known), Some(run_dir)) = (&known, run_dir) {
            known.ensure_same(self, run_dir)?;
        }
        match self.mode {
            Mode::Offline => Ok(()),
            Mode::Online => Ok(super::upload::check_access(self, known.is_some())?),
        }
    }

    /// The longest name that the service takes.
    pub(super) fn fit_name(name: &str) -> String {
        name.chars().take(MAX_NAME).collect()
    }
}

impl Server {
    /// The server that the environment and the settings files name, or else `base_url`. `setting` is what needs its key.
    ///
    /// # Errors
    /// An invalid URL, or no usable key.
    pub fn of_environment(base_url: Option<String>, setting: &str) -> Result<Self, Problem> {
        let files = SettingsFiles::read();
        let base_url = env::get(env::WANDB_BASE_URL).or(base_url).or_else(|| files.get("base_url"));
        Self::new(base_url, &files, Some(setting))
    }

    fn new(base_url: Option<String>, files: &SettingsFiles, needs_key: Option<&str>) -> Result<Self, Problem> {
        let base_url = base_url.unwrap_or_else(|| DEFAULT_BASE_URL.to_owned()).trim_end_matches('/').to_owned();
        let bad = |message: String, hint: &str| Problem::new("logging.wandb.base_url", message, hint);
        let Some((scheme, rest)) = base_url.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))
        else {
            return Err(bad(format!("'{base_url}' is not a URL"), "give one that begins with https://"));
        };
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.contains('@') {
            return Err(bad("it contains credentials".to_owned(), "give the key in WANDB_API_KEY or ~/.netrc"));
        }
        let is_of_wandb = authority == "wandb.ai" || authority.ends_with(".wandb.ai");
        if is_of_wandb && (scheme != "https" || authority != "api.wandb.ai") && !authority.starts_with("api.") {
            return Err(bad(format!("'{base_url}' is not the address of W&B's API"), DEFAULT_BASE_URL));
        }
        let key = needs_key.map(|setting| find_key(&base_url, authority, files, setting)).transpose()?;
        let seconds = |name: &str, default: u64| {
            env::get(name).map_or(Ok(Duration::from_secs(default)), |value| seconds_of(name, &value))
        };
        Ok(Self {
            key,
            user: [
                ("X-WANDB-USERNAME", env::get(env::WANDB_USERNAME)),
                ("X-WANDB-USER-EMAIL", env::get(env::WANDB_USER_EMAIL)),
            ],
            init_timeout: seconds(env::WANDB_INIT_TIMEOUT, 5)?,
            file_timeout: seconds(env::WANDB_FILE_PUSHER_TIMEOUT, 600)?,
            graphql_timeout: seconds(env::WANDB_HTTP_TIMEOUT, 30)?,
            stream_timeout: seconds(env::WANDB_HTTP_TIMEOUT, 180)?,
            base_url,
        })
    }

    /// Page of a run for people.
    pub(super) fn run_page(&self, entity: &str, project: &str, id: &str) -> String {
        let app = env::get(env::WANDB_APP_URL).unwrap_or_else(|| {
            let url = &self.base_url;
            match url.contains("://api.wandb.") {
                true => url.replacen("://api.wandb.", "://wandb.", 1),
                false => url.replacen("://api.", "://app.", 1),
            }
        });
        format!("{}/{entity}/{project}/runs/{id}", app.trim_end_matches('/'))
    }
}

fn resume() -> Result<Resume, Problem> {
    match env::get(env::WANDB_RESUME).as_deref() {
        None | Some("allow" | "auto") => Ok(Resume::Allow),
        Some("must") => Ok(Resume::Must),
        Some("never") => Ok(Resume::Never),
        Some(other) => {
            Err(Problem::new(env::WANDB_RESUME, format!("unknown value '{other}'"), "use allow, must or never"))
        }
    }
}

fn seconds_of(name: &str, value: &str) -> Result<Duration, Problem> {
    let seconds = value.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    let bad = || Problem::new(name, format!("'{value}' is not a number of seconds"), "give a number above 0");
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(bad)
}

/// As W&B reads flags.
pub(super) fn is_true(value: &str) -> bool {
    ["y", "yes", "t", "true", "on", "1"].contains(&value.to_ascii_lowercase().as_str())
}

/// Section `default` of W&B's settings files; later files win.
#[derive(Debug, Default)]
pub(super) struct SettingsFiles(BTreeMap<String, String>);

impl SettingsFiles {
    fn read() -> Self {
        let folder = env::get(env::WANDB_CONFIG_DIR).map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(env::get(env::HOME)?).join(".config/wandb")));
        let mut values = BTreeMap::new();
        for path in folder.into_iter().map(|folder| folder.join("settings")).chain([PathBuf::from("wandb/settings")]) {
            values.extend(read_ini(&path));
        }
        Self(values)
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }
}

/// The section `default` of an INI file; nothing where the file cannot be read.
fn read_ini(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut is_default = false;
    let mut values = Vec::new();
    for line in text.lines().map(str::trim) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(section) => is_default = section == "default",
            None if is_default && !line.starts_with(['#', ';']) => {
                let pair =
                    line.split_once(['=', ':']).map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
                values.extend(pair);
            }
            None => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn a_settings_file_is_read_as_wandb_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings");
        fs::write(&path, "[other]\nentity = no\n[default]\n# a comment\nentity = team\nbase_url = http://host:8080\n")
            .unwrap();
        let expected = [("entity", "team"), ("base_url", "http://host:8080")];
        assert_eq!(read_ini(&path), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_page_of_a_run_is_at_the_app_of_its_server() {
        let page = |url: &str| {
            let server = Server::new(Some(url.to_owned()), &SettingsFiles::default(), None).unwrap();
            server.run_page("me", "hlrp", "abc")
        };
        assert_eq!(page("https://api.wandb.ai/"), "https://wandb.ai/me/hlrp/runs/abc");
        assert_eq!(page("https://api.lab.org"), "https://app.lab.org/me/hlrp/runs/abc");
        assert_eq!(page("http://127.0.0.1:8080"), "http://127.0.0.1:8080/me/hlrp/runs/abc");
    }

    #[test]
    fn a_server_that_cannot_be_meant_is_refused() {
        for url in ["wandb.ai", "https://wandb.ai", "http://user:word@host"] {
            let problem = Server::new(Some(url.to_owned()), &SettingsFiles::default(), None).unwrap_err();
            assert_eq!(problem.key(), Some("logging.wandb.base_url"), "{url}");
            assert!(!problem.to_string().contains("word"));
        }
    }
}
