//! The records of a `.wandb` file, as far as this client writes or uploads them; names and tags are those of W&B's `wandb_internal.proto`.

use prost::{Message, Oneof};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// A record.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Record {
    #[prost(int64, tag = "1")]
    pub(crate) num: i64,
    /// None in a record of a kind that this client does not know.
    #[prost(oneof = "Kind", tags = "2, 3, 5, 6, 7, 13, 17, 18, 20, 21, 22, 23")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
#[allow(clippy::large_enum_variant, reason = "one of them exists at a time, for as long as it takes to write it")]
pub(crate) enum Kind {
    #[prost(message, tag = "2")]
    History(History),
    #[prost(message, tag = "3")]
    Summary(Update),
    #[prost(message, tag = "5")]
    Config(Update),
    #[prost(message, tag = "6")]
    Files(Files),
    #[prost(message, tag = "7")]
    Stats(Stats),
    #[prost(message, tag = "13")]
    OutputRaw(OutputRaw),
    #[prost(message, tag = "17")]
    Run(Run),
    #[prost(message, tag = "18")]
    Exit(Exit),
    #[prost(message, tag = "20")]
    Final(Empty),
    #[prost(message, tag = "21")]
    Header(Header),
    #[prost(message, tag = "22")]
    Footer(Empty),
    #[prost(message, tag = "23")]
    Preempting(Empty),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Header {
    #[prost(message, optional, tag = "1")]
    pub(crate) version_info: Option<VersionInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionInfo {
    #[prost(string, tag = "1")]
    pub(crate) producer: String,
    #[prost(string, tag = "2")]
    pub(crate) min_consumer: String,
}

/// A value under a key, or under a path of keys.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Item {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) nested_key: Vec<String>,
    #[prost(string, tag = "16")]
    pub(crate) value_json: String,
}

impl Item {
    pub(crate) fn new(key: &str, value: &Value) -> Self {
        Self { key: key.to_owned(), nested_key: Vec::new(), value_json: value.to_string() }
    }

    /// The keys from the outermost on.
    pub(crate) fn path(&self) -> Vec<&str> {
        match self.nested_key.as_slice() {
            [] => vec![&self.key],
            path => path.iter().map(String::as_str).collect(),
        }
    }

    /// The value; text that is not JSON, such as the official client's bare `NaN`, as a string.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.value_json).unwrap_or_else(|_| Value::String(self.value_json.clone()))
    }
}

/// One row: all values of a step.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct History {
    #[prost(message, repeated, tag = "1")]
    pub(crate) item: Vec<Item>,
    #[prost(message, optional, tag = "2")]
    pub(crate) step: Option<Step>,
}

impl History {
    /// The value of `_step`.
    pub(crate) fn step(&self) -> Option<u64> {
        let item = self.item.iter().find(|item| item.path() == ["_step"]);
        item.map_or_else(|| u64::try_from(self.step.as_ref()?.num).ok(), |item| item.value().as_u64())
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Step {
    #[prost(int64, tag = "1")]
    pub(crate) num: i64,
}

/// Changed values of the summary or of the configuration.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Update {
    #[prost(message, repeated, tag = "1")]
    pub(crate) update: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Files {
    #[prost(message, repeated, tag = "1")]
    pub(crate) files: Vec<FilesItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FilesItem {
    /// Below the session's folder `files`.
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    /// 0 = upload now.
    #[prost(int32, tag = "2")]
    pub(crate) policy: i32,
    /// One of the following.
    #[prost(int32, tag = "3")]
    pub(crate) kind: i32,
}

impl FilesItem {
    pub(crate) const WANDB: i32 = 1;
    pub(crate) const MEDIA: i32 = 2;
}

/// A sample of system metrics, keys without `system.`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stats {
    #[prost(message, optional, tag = "2")]
    pub(crate) timestamp: Option<Timestamp>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) item: Vec<StatsItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatsItem {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "16")]
    pub(crate) value_json: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OutputRaw {
    /// 0 = standard error, 1 = standard output.
    #[prost(int32, tag = "1")]
    pub(crate) output_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) timestamp: Option<Timestamp>,
    /// With its line end.
    #[prost(string, tag = "3")]
    pub(crate) line: String,
}

/// The run that the file is about.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Run {
    #[prost(string, tag = "1")]
    pub(crate) run_id: String,
    /// Empty = the user's default.
    #[prost(string, tag = "2")]
    pub(crate) entity: String,
    #[prost(string, tag = "3")]
    pub(crate) project: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) config: Option<Update>,
    #[prost(string, tag = "6")]
    pub(crate) run_group: String,
    #[prost(string, tag = "7")]
    pub(crate) job_type: String,
    #[prost(string, tag = "8")]
    pub(crate) display_name: String,
    #[prost(string, tag = "9")]
    pub(crate) notes: String,
    #[prost(string, repeated, tag = "10")]
    pub(crate) tags: Vec<String>,
    #[prost(string, tag = "13")]
    pub(crate) host: String,
    #[prost(int64, tag = "14")]
    pub(crate) starting_step: i64,
    #[prost(message, optional, tag = "17")]
    pub(crate) start_time: Option<Timestamp>,
    #[prost(message, optional, tag = "19")]
    pub(crate) telemetry: Option<Telemetry>,
    #[prost(message, optional, tag = "21")]
    pub(crate) git: Option<Git>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Telemetry {
    #[prost(string, tag = "5")]
    pub(crate) cli_version: String,
    #[prost(string, tag = "13")]
    pub(crate) platform: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Git {
    #[prost(string, tag = "1")]
    pub(crate) remote_url: String,
    #[prost(string, tag = "2")]
    pub(crate) commit: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exit {
    #[prost(int32, tag = "1")]
    pub(crate) exit_code: i32,
    /// Whole seconds.
    #[prost(int32, tag = "2")]
    pub(crate) runtime: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl Timestamp {
    pub(crate) fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() as i32 }
    }

    /// Unix time in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds as f64 + f64::from(self.nanos) / 1e9
    }
}
