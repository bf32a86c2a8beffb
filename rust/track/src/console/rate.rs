//! How fast steps pass, and when the last one will.

use std::{collections::VecDeque, time::Duration};

/// Span over which the rate is averaged.
const WINDOW: Duration = Duration::from_secs(30);

/// Rate over the last half minute (over everything before that).
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// (time since the start, step), oldest first; the front is at least [`WINDOW`] old once that much time has passed.
    marks: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// Notes that `step` was reached `elapsed` after the start.
    pub(super) fn mark(&mut self, elapsed: Duration, step: u64) {
        self.marks.push_back((elapsed, step));
        while self.marks.get(1).is_some_and(|(second, _)| elapsed.saturating_sub(*second) >= WINDOW) {
            self.marks.pop_front();
        }
    }

    /// Steps per second; nothing before the second mark.
    pub(super) fn per_second(&self) -> Option<f64> {
        let ((first_time, first), (last_time, last)) = (self.marks.front()?, self.marks.back()?);
        let seconds = (*last_time - *first_time).as_secs_f64();
        (last > first && seconds > 0.0).then(|| (last - first) as f64 / seconds)
    }

    /// Time until `total` at this rate.
    pub(super) fn remaining(&self, total: u64) -> Option<Duration> {
        let (_, step) = self.marks.back()?;
        Duration::try_from_secs_f64(total.saturating_sub(*step) as f64 / self.per_second()?).ok()
    }
}

/// `1:02:03`, `2:03`.
pub(super) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_continued_run_counts_only_its_own_steps() {
        let mut rate = Rate::default();
        rate.mark(seconds(0), 1000);
        assert_eq!(rate.per_second(), None);
        rate.mark(seconds(10), 1020);
        assert_eq!(rate.per_second(), Some(2.0));
        assert_eq!(rate.remaining(1120), Some(seconds(50)));
    }

    #[test]
    fn old_speed_is_forgotten() {
        let mut rate = Rate::default();
        for step in 0..=100 {
            rate.mark(seconds(step), step);
        }
        for second in 1..=60 {
            rate.mark(seconds(100 + second), 100 + 10 * second);
        }
        assert_eq!(rate.per_second(), Some(10.0));
    }

    #[test]
    fn clock_reads_like_a_clock() {
        assert_eq!(clock(seconds(3723)), "1:02:03");
        assert_eq!(clock(seconds(59)), "0:59");
    }
}
