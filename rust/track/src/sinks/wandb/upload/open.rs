//! A run that the service has: what it has of it, and what it gets next.

use super::{
    super::record::Kind,
    api::{Bucket, Place},
    stream::Stream,
};
use serde_json::{Map, Value};

/// What is known once the service has the run.
pub(super) struct Open {
    pub(super) place: Place,
    pub(super) stream: Stream,
    /// `{key: {"value": v}}`.
    pub(super) config: Map<String, Value>,
    pub(super) last_step: Option<u64>,
    pub(super) last_event: f64,
    /// Console lines that the service has.
    pub(super) num_lines_there: u64,
    /// Console lines read so far, with those that were there before.
    pub(super) num_lines: u64,
    pub(super) start_time: f64,
}

impl Open {
    pub(super) fn new(
        place: Place,
        bucket: Bucket,
        config: Map<String, Value>,
        start_time: f64,
        lines_before: Option<u64>,
    ) -> Self {
        Self {
            place,
            stream: Stream::after(bucket.num_history, bucket.num_events, bucket.num_lines, bucket.summary),
            config,
            last_step: bucket.last_step,
            last_event: bucket.last_event.unwrap_or(f64::NEG_INFINITY),
            num_lines_there: bucket.num_lines,
            num_lines: lines_before.unwrap_or(0),
            start_time,
        }
    }

    /// Takes a record, unless the service has it.
    pub(super) fn take(&mut self, kind: Kind, shift: u64) {
        match kind {
            Kind::History(row) => {
                let step = row.step().map(|step| step + shift);
                if step > self.last_step {
                    self.last_step = step;
                    self.stream.row(&row.item, shift);
                }
            }
            Kind::Summary(summary) => self.stream.update_summary(&summary.update, shift),
            Kind::Stats(stats) => {
                let timestamp = stats.timestamp.as_ref().map_or(0.0, |time| time.seconds());
                if timestamp > self.last_event {
                    self.last_event = timestamp;
                    self.stream.stats(&stats, timestamp, (timestamp - self.start_time).max(0.0));
                }
            }
            Kind::OutputRaw(output) => {
                let timestamp = output.timestamp.as_ref().map_or(0.0, |time| time.seconds());
                for line in output.line.trim_end_matches('\n').split('\n') {
                    self.num_lines += 1;
                    if self.num_lines > self.num_lines_there {
                        self.stream.line(line, timestamp, output.output_type == 0);
                    }
                }
            }
            _ => {}
        }
    }
}
