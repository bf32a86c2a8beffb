//! Draws handed to threads and batches in the making, bounded in number.

use super::samples::{self, Outcome, SampleParts};
use crate::{lock::lock, mixture::SampleLayout};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
};

/// One sample to make.
pub(super) struct Work {
    pub(super) draw: u64,
    pub(super) parts: SampleParts,
}

/// A batch in the making.
struct Pending {
    /// Its first draw.
    first_draw: u64,
    /// Samples that no thread has taken, last sample first.
    waiting: Vec<SampleParts>,
    /// One entry per sample.
    outcomes: Vec<Option<Outcome>>,
    /// Entries that are empty.
    num_missing: usize,
}

struct State {
    /// Batches in the order of their draws. Only the last one has waiting samples.
    pending: VecDeque<Pending>,
    /// First draw of the next batch to begin.
    next_draw: u64,
    is_stopped: bool,
}

/// Shared by the threads and the consumer.
pub(super) struct Queue {
    layout: SampleLayout,
    batch_size: usize,
    /// Draws in all.
    num_draws: u64,
    /// Most batches in the making.
    max_pending: usize,
    state: Mutex<State>,
    /// Signals that there may be work, or that the queue has stopped.
    work: Condvar,
    /// Signals that the first batch may be complete.
    ready: Condvar,
}

impl Queue {
    pub(super) fn new(layout: SampleLayout, batch_size: usize, num_draws: u64, max_pending: usize) -> Self {
        let state = State { pending: VecDeque::new(), next_draw: 0, is_stopped: false };
        let (work, ready) = (Condvar::new(), Condvar::new());
        Self { layout, batch_size, num_draws, max_pending, state: Mutex::new(state), work, ready }
    }

    /// The next sample to make; waits while enough batches are in the making. None when the queue has stopped or all draws are taken.
    pub(super) fn take(&self) -> Option<Work> {
        let mut state = lock(&self.state);
        loop {
            if state.is_stopped {
                return None;
            }
            if let Some(work) = state.pending.back_mut().and_then(Pending::take) {
                return Some(work);
            }
            if state.next_draw == self.num_draws {
                return None;
            }
            if state.pending.len() < self.max_pending {
                self.begin_batch(&mut state);
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Puts the outcome of a draw into its batch.
    pub(super) fn put(&self, draw: u64, outcome: Outcome) {
        let mut state = lock(&self.state);
        // Draws of a batch are consecutive, and a batch leaves only when all its outcomes are there.
        if let Some(batch) = state.pending.iter_mut().rev().find(|batch| batch.first_draw <= draw) {
            batch.outcomes[(draw - batch.first_draw) as usize] = Some(outcome);
            batch.num_missing -= 1;
            if batch.num_missing == 0 {
                self.ready.notify_one();
            }
        }
    }

    /// The outcomes of the next batch; waits for the last of them. None when the queue has stopped or all batches have left.
    pub(super) fn next(&self) -> Option<Vec<Outcome>> {
        let mut state = lock(&self.state);
        loop {
            if state.is_stopped || (state.pending.is_empty() && state.next_draw == self.num_draws) {
                return None;
            }
            if state.pending.front().is_some_and(|batch| batch.num_missing == 0) {
                let batch = state.pending.pop_front()?;
                self.work.notify_all();
                return Some(batch.outcomes.into_iter().flatten().collect());
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all waiting, now and later.
    pub(super) fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.work.notify_all();
        self.ready.notify_all();
    }

    /// Batches in the making.
    pub(super) fn num_pending(&self) -> usize {
        lock(&self.state).pending.len()
    }

    fn begin_batch(&self, state: &mut State) {
        let num_samples = (self.num_draws - state.next_draw).min(self.batch_size as u64) as usize;
        let mut waiting = samples::cut(&self.layout, num_samples);
        waiting.reverse();
        let outcomes = (0..num_samples).map(|_| None).collect();
        state.pending.push_back(Pending { first_draw: state.next_draw, waiting, outcomes, num_missing: num_samples });
        state.next_draw += num_samples as u64;
    }
}

impl Pending {
    fn take(&mut self) -> Option<Work> {
        let draw = self.first_draw + (self.outcomes.len() - self.waiting.len()) as u64;
        self.waiting.pop().map(|parts| Work { draw, parts })
    }
}
