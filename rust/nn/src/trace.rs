//! What accompanies a tensor through a forward pass.

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

/// One forward pass: whether it trains, and who watches.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Whether dropout acts.
    pub train: bool,
    /// Where intermediate results go.
    pub trace: Option<&'a Trace>,
}

impl Pass<'_> {
    /// A pass that nobody watches.
    pub fn plain(train: bool) -> Self {
        Self { train, trace: None }
    }

    /// Records `tensor` (a handle, not a copy) when somebody watches.
    pub fn record(&self, name: impl FnOnce() -> String, tensor: &Tensor) {
        if let Some(trace) = self.trace {
            trace.records.borrow_mut().push((name(), tensor.shallow_clone()));
        }
    }
}
