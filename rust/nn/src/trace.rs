//! Options of a forward pass, and records of its intermediate results.

use std::cell::RefCell;
use tch::Tensor;

/// Collects intermediate results under names.
#[derive(Default)]
pub struct Trace {
    records: RefCell<Vec<(String, Tensor)>>,
}

impl Trace {
    /// Everything recorded so far, in order.
    pub fn into_records(self) -> Vec<(String, Tensor)> {
        self.records.into_inner()
    }
}

/// Options of one forward pass.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Whether dropout is applied.
    pub train: bool,
    /// Where intermediate results are recorded.
    pub trace: Option<&'a Trace>,
}

impl Pass<'_> {
    /// A pass without records.
    pub fn plain(train: bool) -> Self {
        Self { train, trace: None }
    }

    /// Records `tensor` (a handle, not a copy) if there is a trace.
    pub fn record(&self, name: impl FnOnce() -> String, tensor: &Tensor) {
        if let Some(trace) = self.trace {
            trace.records.borrow_mut().push((name(), tensor.shallow_clone()));
        }
    }
}
