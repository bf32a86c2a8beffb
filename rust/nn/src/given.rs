//! Tensors that the caller has and a model asks for by name.

use crate::NnError;
use crate::weights::describe;
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// The caller's tensors, and what was wrong with them.
pub(crate) struct Given {
    untaken: HashMap<String, Tensor>,
    missing: Vec<String>,
    misfit: Option<NnError>,
}

impl Given {
    pub(crate) fn new(tensors: HashMap<String, Tensor>) -> Self {
        Self { untaken: tensors, missing: Vec::new(), misfit: None }
    }

    /// The tensor of that name; nothing usable where it is missing or does not fit, which [`Given::finish`] tells.
    pub(crate) fn take(&mut self, name: &str, kinds: &[Kind], shape: &[i64]) -> Tensor {
        let Some(tensor) = self.untaken.remove(name) else {
            self.missing.push(name.to_owned());
            return Tensor::new();
        };
        if !(kinds.contains(&tensor.kind()) && tensor.size() == shape) && self.misfit.is_none() {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
            let (expected, found) = (format!("{} {shape:?}", kinds.join(" or ")), describe(&tensor));
            self.misfit = Some(NnError::Tensor { name: name.to_owned(), expected, found });
        }
        tensor
    }

    /// Whether the model took every tensor and found all that it needs.
    pub(crate) fn finish(&mut self) -> Result<(), NnError> {
        if !self.missing.is_empty() || !self.untaken.is_empty() {
            let mut unknown: Vec<String> = self.untaken.keys().cloned().collect();
            unknown.sort_unstable();
            return Err(NnError::Names { missing: std::mem::take(&mut self.missing), unknown });
        }
        self.misfit.take().map_or(Ok(()), Err)
    }
}
