//! Pauses between attempts that fail.

use super::super::settings::Timing;
use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// The pauses between attempts.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pub(super) num_failures: u32,
    pub(super) not_before: Option<Instant>,
}

impl Backoff {
    /// After a failure: when to try again. The pause doubles, with up to a quarter more by chance, unless the service names one.
    pub(super) fn failed(&mut self, timing: &Timing, after: Option<Duration>) -> Instant {
        let doubled = timing.retry_min_s * 2f64.powi(self.num_failures.min(30) as i32);
        let jitter = (RandomState::new().hash_one(self.num_failures) % 1000) as f64 / 4000.0;
        let pause = Duration::from_secs_f64(doubled.min(timing.retry_max_s) * (1.0 + jitter));
        self.num_failures += 1;
        let time = Instant::now() + after.unwrap_or(pause);
        self.not_before = Some(time);
        time
    }
}
