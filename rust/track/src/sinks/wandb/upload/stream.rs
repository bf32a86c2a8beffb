//! What the next request with data has in it.

use super::super::{
    notice,
    record::{Item, Stats},
    session::set,
    writer::MAX_LINE,
};
use serde_json::{Map, Value, json};

/// Bytes of lines that make a request full.
const FULL: usize = 4 << 20;
/// Times of console lines, UTC.
const TIME: &str = "%Y-%m-%dT%H:%M:%S%.6f";

/// Lines of one file of the stream.
#[derive(Debug, Default)]
struct Lines {
    /// Number of lines before these.
    offset: u64,
    content: Vec<String>,
}

impl Lines {
    fn chunk(&self) -> Value {
        json!({ "offset": self.offset, "content": self.content })
    }

    fn done(&mut self) {
        self.offset += self.content.len() as u64;
        self.content.clear();
    }
}

/// Data that no request has had yet.
#[derive(Debug, Default)]
pub(super) struct Stream {
    history: Lines,
    events: Lines,
    output: Lines,
    summary: Map<String, Value>,
    is_summary_new: bool,
    uploaded: Vec<String>,
    is_preempting: bool,
    num_bytes: usize,
}

impl Stream {
    /// A stream that continues after so many lines of history, system metrics and console, with this summary.
    pub(super) fn after(history: u64, events: u64, output: u64, summary: Map<String, Value>) -> Self {
        let lines = |offset| Lines { offset, content: Vec::new() };
        let (history, events, output) = (lines(history), lines(events), lines(output));
        Self { history, events, output, summary, ..Self::default() }
    }

    pub(super) fn summary(&self) -> &Map<String, Value> {
        &self.summary
    }

    pub(super) fn is_full(&self) -> bool {
        self.num_bytes >= FULL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.num_bytes == 0 && self.uploaded.is_empty() && !self.is_preempting && !self.is_summary_new
    }

    /// Whether the next request should not wait.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_full() || self.is_preempting
    }

    /// A row of the history whose step is `shift` later than the record says.
    pub(super) fn row(&mut self, items: &[Item], shift: u64) {
        let mut row = Map::new();
        items.iter().for_each(|item| set(&mut row, &item.path(), item.value()));
        shift_step(&mut row, shift);
        let line = Value::Object(row).to_string();
        if line.len() > MAX_LINE {
            notice::warn(&format!("a row of {} bytes is too long for W&B and was left out", line.len()));
            return;
        }
        self.num_bytes += line.len();
        self.history.content.push(line);
    }

    pub(super) fn update_summary(&mut self, items: &[Item], shift: u64) {
        items.iter().for_each(|item| set(&mut self.summary, &item.path(), item.value()));
        if items.iter().any(|item| item.path() == ["_step"]) {
            shift_step(&mut self.summary, shift);
        }
        self.is_summary_new = true;
    }

    /// The run has ended after so many seconds.
    pub(super) fn end_at(&mut self, runtime: i32) {
        set(&mut self.summary, &["_wandb", "runtime"], runtime.into());
        self.is_summary_new = true;
    }

    /// A sample of system metrics, taken `runtime` seconds after the start.
    pub(super) fn stats(&mut self, stats: &Stats, timestamp: f64, runtime: f64) {
        let mut event = Map::new();
        event.insert("_wandb".to_owned(), true.into());
        event.insert("_timestamp".to_owned(), timestamp.into());
        event.insert("_runtime".to_owned(), runtime.into());
        for item in &stats.item {
            let value = serde_json::from_str(&item.value_json).unwrap_or_default();
            event.insert(format!("system.{}", item.key), value);
        }
        let line = Value::Object(event).to_string();
        self.num_bytes += line.len();
        self.events.content.push(line);
    }

    /// A console line that was printed at `timestamp`.
    pub(super) fn line(&mut self, line: &str, timestamp: f64, is_error: bool) {
        let time = jiff::Timestamp::from_microsecond((timestamp * 1e6) as i64).unwrap_or_default().strftime(TIME);
        let level = if is_error { "ERROR " } else { "" };
        let mut line = format!("{level}{time} {line}");
        if line.len() > MAX_LINE {
            line.truncate((0..=MAX_LINE).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0));
        }
        self.num_bytes += line.len();
        self.output.content.push(line);
    }

    pub(super) fn uploaded(&mut self, name: String) {
        self.uploaded.push(name);
    }

    pub(super) fn preempting(&mut self) {
        self.is_preempting = true;
    }

    /// The body of a request with everything so far, which a repetition sends unchanged; with `exit_code` it is the last one.
    pub(super) fn take(&mut self, exit_code: Option<i32>) -> String {
        let mut body = Map::new();
        let mut files = Map::new();
        for (name, lines) in [
            ("wandb-history.jsonl", &mut self.history),
            ("wandb-events.jsonl", &mut self.events),
            ("output.log", &mut self.output),
        ] {
            if !lines.content.is_empty() {
                files.insert(name.to_owned(), lines.chunk());
                lines.done();
            }
        }
        if std::mem::take(&mut self.is_summary_new) {
            let summary = Value::Object(self.summary.clone()).to_string();
            if summary.len() <= MAX_LINE {
                files.insert("wandb-summary.json".to_owned(), json!({ "offset": 0, "content": [summary] }));
            }
        }
        if !files.is_empty() {
            body.insert("files".to_owned(), files.into());
        }
        if !self.uploaded.is_empty() {
            body.insert("uploaded".to_owned(), std::mem::take(&mut self.uploaded).into());
        }
        if std::mem::take(&mut self.is_preempting) {
            body.insert("preempting".to_owned(), true.into());
        }
        if let Some(code) = exit_code {
            body.insert("complete".to_owned(), true.into());
            body.insert("exitcode".to_owned(), code.into());
        }
        self.num_bytes = 0;
        Value::Object(body).to_string()
    }
}

fn shift_step(row: &mut Map<String, Value>, shift: u64) {
    if let Some(step) = row.get_mut("_step")
        && let Some(number) = step.as_u64()
    {
        *step = (number + shift).into();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn a_request_has_what_came_since_the_last_one() {
        let mut stream = Stream::after(50, 4, 7, Map::new());
        assert!(stream.is_empty());
        let step = Item::new("_step", &json!(3));
        stream.row(&[step.clone(), Item::new("train/loss", &json!(0.5))], 200);
        stream.update_summary(&[step], 200);
        stream.line("epoch 1", 1_795_429_529.909_592, false);
        let body: Value = serde_json::from_str(&stream.take(None)).unwrap();
        let files = &body["files"];
        let row = json!({ "offset": 50, "content": [r#"{"_step":203,"train/loss":0.5}"#] });
        assert_eq!(files["wandb-history.jsonl"], row);
        assert_eq!(files["output.log"], json!({ "offset": 7, "content": ["2026-11-23T10:25:29.909592 epoch 1"] }));
        assert_eq!(files["wandb-summary.json"]["content"][0], r#"{"_step":203}"#);
        assert!(stream.is_empty());
        assert_eq!(stream.take(None), "{}", "a sign of life");
        assert_eq!(stream.take(Some(0)), r#"{"complete":true,"exitcode":0}"#);
    }
}
