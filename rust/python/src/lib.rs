//! The Python extension `hlrp_rs._core`: translates between Python and the crates below, and does nothing else.
//!
//! | question | where |
//! |---|---|
//! | How do tensors cross the border? | `tensors` |
//! | How do descriptions cross it? What happens to the GIL, to errors and to panics? | `wall`, `failure` |
//! | What do the classes offer? | one file each: `policy`, `artifact`, `checkpoint`, `teacher`, `labels`, `dataset` |
//!
//! The type stubs (`python/hlrp_rs/_core.pyi`) are generated from the signatures and texts here by `make stubs`.
//!
//! Nothing here keeps a tensor that a caller passed in.
//!
//! Shape suffixes: B samples, T frames or steps, C channels, H×W pixels, L tokens, N state dims, A action dims, S code slots, D code vector dims.
#![allow(non_snake_case)] // shape suffixes

mod artifact;
mod backbone;
mod batch;
mod checkpoint;
mod config;
mod dataset;
mod failure;
mod inputs;
mod labels;
mod losses;
mod policy;
mod teacher;
mod tensors;
mod wall;

use pyo3::prelude::*;

/// The compiled part of `hlrp_rs`: the models in Rust over the libtorch of the `torch` in this process.
///
/// Every tensor that crosses the border is a real `torch.Tensor`; nothing is copied. Grad mode, inference mode, autocast, random generators and
/// devices are the caller's: `torch.no_grad()` or `torch.autocast()` around a call holds inside it. The GIL is released while Rust computes; it
/// computes on the calling thread.
///
/// Shapes: B samples, T frames or steps of an action chunk, C = 3 channels, H×W pixels, N state dims, A action dims, S code slots,
/// D code vector dims, K codes.
///
/// Errors of Rust keep their text, which names the key, tensor or file and ends in a `hint:`.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    wall::install();
    failure::register(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("LIBTORCH_VERSION", hlrp_torch::LIBTORCH_VERSION)?;
    module.add_class::<policy::Policy>()?;
    module.add_class::<policy::Initialised>()?;
    module.add_class::<artifact::Artifact>()?;
    module.add_class::<checkpoint::Checkpoint>()?;
    module.add_class::<teacher::Teacher>()?;
    module.add_class::<labels::DatasetLabels>()?;
    module.add_class::<dataset::Dataset>()?;
    module.add_class::<dataset::BatchStream>()?;
    module.add_function(wrap_pyfunction!(backbone::locate_model, module)?)?;
    module.add_function(wrap_pyfunction!(backbone::backbone_sizes, module)?)?;
    module.add_function(wrap_pyfunction!(checkpoint::checkpoint_task, module)?)?;
    module.add_function(wrap_pyfunction!(policy::policy_description, module)?)?;
    module.add_function(wrap_pyfunction!(policy::smolvla_description, module)?)?;
    module.add_function(wrap_pyfunction!(config::compose_config, module)?)
}
