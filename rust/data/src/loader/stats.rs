//! What the threads of a loader have done.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Figures of one loader since its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoaderStats {
    /// Samples made.
    pub num_samples: u64,
    /// Samples that could not be decoded and were replaced.
    pub num_bad_samples: u64,
    /// Bytes of the batches in the making or ready, now, and the most that clips take.
    pub bytes_in_flight: u64,
    /// Most bytes that can be in flight.
    pub max_bytes_in_flight: u64,
    /// Time that all decode threads together worked.
    pub worker_busy: Duration,
    /// Time that all decode threads together waited because enough batches were ready: the trainer is the bottleneck.
    pub worker_idle: Duration,
    /// Time that the trainer waited for a batch: the data is the bottleneck.
    pub consumer_wait: Duration,
}

/// Counters that threads add to.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) num_samples: AtomicU64,
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
}

impl Counters {
    pub(super) fn add_busy(&self, time: Duration) {
        self.num_samples.fetch_add(1, Ordering::Relaxed);
        self.busy_ns.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    pub(super) fn add_idle(&self, time: Duration) {
        self.idle_ns.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    pub(super) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_nanos(self.idle_ns.load(Ordering::Relaxed))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
