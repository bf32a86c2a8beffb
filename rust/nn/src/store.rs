//! The ordered list of a model's tensors, and how weights from elsewhere enter it: strictly, by name, shape and number format.

use crate::NnError;
use hlrp_torch::{TorchError, describe, load_strict};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use tch::{Device, Kind, Tensor, no_grad};

/// How a parameter is initialised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All the same value.
    Constant(f64),
    /// N(0, 1).
    Normal,
    /// N(0, σ²) with this σ.
    ScaledNormal(f64),
    /// U(−1/√fan_in, 1/√fan_in), PyTorch's default for linear and convolution layers.
    FanIn(i64),
}

impl Init {
    /// Samples from the CPU's generator whatever the device, so that one seed gives one model.
    fn tensor(self, shape: &[i64]) -> Tensor {
        let options = (Kind::Float, Device::Cpu);
        match self {
            Self::Constant(value) => Tensor::full(shape, value, options),
            Self::Normal => Tensor::randn(shape, options),
            Self::ScaledNormal(std) => Tensor::randn(shape, options) * std,
            Self::FanIn(fan_in) => {
                let bound = 1.0 / (fan_in as f64).sqrt();
                Tensor::empty(shape, options).uniform_(-bound, bound)
            }
        }
    }
}

struct Entry {
    name: String,
    tensor: Tensor,
    trainable: bool,
    is_castable: bool,
}

/// Where the tensors of a store come from.
enum Origin {
    /// Each is initialised as its [`Init`] says.
    Drawn,
    /// Each has its shape and no memory.
    Sketched,
    /// The caller provides them.
    Provided(RefCell<Provided>),
}

/// A model's parameters and buffers, in the order of their registration.
pub struct Store {
    device: Device,
    origin: Origin,
    entries: RefCell<Vec<Entry>>,
    names: RefCell<HashSet<String>>,
}

impl Store {
    /// An empty store whose tensors will live on `device`, with fresh values.
    pub fn new(device: Device) -> Self {
        Self::with_origin(device, Origin::Drawn)
    }

    /// An empty store for a model of which only names and shapes are needed: its tensors must not be written.
    pub fn sketch() -> Self {
        Self::with_origin(Device::Cpu, Origin::Sketched)
    }

    /// A store over the caller's tensors, found by name. Nothing is copied or changed: a parameter requires a gradient if its tensor does.
    /// [`Store::finish`] reports tensors that do not fit.
    pub fn over(tensors: HashMap<String, Tensor>) -> Self {
        let device = tensors.values().next().map_or(Device::Cpu, Tensor::device);
        Self::with_origin(device, Origin::Provided(RefCell::new(Provided::new(tensors))))
    }

    fn with_origin(device: Device, origin: Origin) -> Self {
        Self { device, origin, entries: RefCell::default(), names: RefCell::default() }
    }

    /// Checks that the caller's tensors are exactly the model's. To be called when a model is complete, before it computes.
    ///
    /// # Errors
    /// A missing or unknown tensor, or one of another shape or number format.
    pub fn finish(&self) -> Result<(), NnError> {
        match &self.origin {
            Origin::Provided(provided) => provided.borrow_mut().finish(),
            Origin::Drawn | Origin::Sketched => Ok(()),
        }
    }

    /// The empty prefix.
    pub fn root(&self) -> Scope<'_> {
        Scope { store: self, prefix: String::new() }
    }

    /// The device of all tensors.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Trained tensors by name.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.select(|entry| entry.trainable)
    }

    /// Untrained tensors that belong to the model's state, by name.
    pub fn buffers(&self) -> Vec<(String, Tensor)> {
        self.select(|entry| !entry.trainable)
    }

    /// Parameters and buffers by name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.select(|_| true)
    }

    /// Overwrites every tensor with the one of the same name in `source`.
    ///
    /// # Errors
    /// A missing, unknown or differently shaped tensor; the store is then unchanged.
    pub fn load_strict(&self, source: &[(String, Tensor)]) -> Result<(), NnError> {
        Ok(load_strict(&self.state(), source)?)
    }

    /// Makes every parameter constant: no gradient is ever computed for it.
    pub fn freeze(&self) {
        for entry in self.entries.borrow_mut().iter_mut() {
            entry.tensor = entry.tensor.set_requires_grad(false);
        }
    }

    /// Freezes the parameters whose names match and returns their number: they get no gradient and count as buffers from then on.
    pub fn freeze_where(&self, matches: impl Fn(&str) -> bool) -> usize {
        let mut entries = self.entries.borrow_mut();
        let picked = entries.iter_mut().filter(|entry| entry.trainable && matches(&entry.name));
        picked
            .map(|entry| {
                entry.tensor = entry.tensor.set_requires_grad(false);
                entry.trainable = false;
            })
            .count()
    }

    /// Names of the parameters that a caller may also provide in bfloat16.
    pub fn castable(&self) -> Vec<String> {
        self.entries.borrow().iter().filter(|entry| entry.is_castable).map(|entry| entry.name.clone()).collect()
    }

    fn select(&self, keep: impl Fn(&Entry) -> bool) -> Vec<(String, Tensor)> {
        let entries = self.entries.borrow();
        entries
            .iter()
            .filter(|entry| keep(entry))
            .map(|entry| (entry.name.clone(), entry.tensor.shallow_clone()))
            .collect()
    }

    fn register(&self, name: String, tensor: Tensor, trainable: bool, is_castable: bool) -> Tensor {
        let is_new = self.names.borrow_mut().insert(name.clone());
        assert!(is_new, "two tensors are named `{name}`");
        let handle = tensor.shallow_clone();
        self.entries.borrow_mut().push(Entry { name, tensor, trainable, is_castable });
        handle
    }
}

/// A prefix of names, such as `enc_spatial_transformer.layers.0`.
#[derive(Clone)]
pub struct Scope<'a> {
    store: &'a Store,
    prefix: String,
}

impl Scope<'_> {
    /// The prefix `name` below this one.
    #[must_use]
    pub fn child(&self, name: impl std::fmt::Display) -> Self {
        Self { store: self.store, prefix: self.full_name(name) }
    }

    /// Registers a float32 parameter and returns a handle to it.
    pub fn parameter(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.add_parameter(name, shape, init, &[Kind::Float])
    }

    /// Registers a parameter of a matrix product that runs under autocast. A caller that provides the tensors may provide it in bfloat16,
    /// which changes no result and saves the cast.
    pub fn castable(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.add_parameter(name, shape, init, &[Kind::Float, Kind::BFloat16])
    }

    fn add_parameter(&self, name: &str, shape: &[i64], init: Init, kinds: &[Kind]) -> Tensor {
        let name = self.full_name(name);
        let tensor = match &self.store.origin {
            Origin::Drawn => no_grad(|| init.tensor(shape).to_device(self.store.device)).set_requires_grad(true),
            Origin::Sketched => Tensor::zeros([], (Kind::Float, Device::Cpu)).expand(shape, false),
            Origin::Provided(provided) => provided.borrow_mut().take(&name, kinds, shape),
        };
        self.store.register(name, tensor, true, kinds.len() > 1)
    }

    /// Registers a buffer and returns a handle to it.
    pub fn buffer(&self, name: &str, value: &Tensor) -> Tensor {
        let name = self.full_name(name);
        let tensor = match &self.store.origin {
            Origin::Drawn | Origin::Sketched => value.to_device(self.store.device),
            Origin::Provided(provided) => provided.borrow_mut().take(&name, &[value.kind()], &value.size()),
        };
        self.store.register(name, tensor, false, false)
    }

    /// The device of all tensors.
    pub fn device(&self) -> Device {
        self.store.device
    }

    /// Parameters and buffers below this prefix, by the rest of their names.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let prefix = self.full_name("");
        let below = |(name, tensor): (String, Tensor)| name.strip_prefix(&prefix).map(|name| (name.to_owned(), tensor));
        self.store.state().into_iter().filter_map(below).collect()
    }

    fn full_name(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

/// The caller's tensors that no parameter has asked for yet, and what was wrong with the others.
struct Provided {
    rest: HashMap<String, Tensor>,
    missing: Vec<String>,
    mismatch: Option<NnError>,
}

impl Provided {
    fn new(tensors: HashMap<String, Tensor>) -> Self {
        Self { rest: tensors, missing: Vec::new(), mismatch: None }
    }

    /// The tensor of that name; an unusable one where it is missing or does not fit, which [`Provided::finish`] reports.
    fn take(&mut self, name: &str, kinds: &[Kind], shape: &[i64]) -> Tensor {
        let Some(tensor) = self.rest.remove(name) else {
            self.missing.push(name.to_owned());
            return Tensor::new();
        };
        if !(kinds.contains(&tensor.kind()) && tensor.size() == shape) && self.mismatch.is_none() {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
            let (expected, found) = (format!("{} {shape:?}", kinds.join(" or ")), describe(&tensor));
            self.mismatch = Some(TorchError::Weight { name: name.to_owned(), expected, found }.into());
        }
        tensor
    }

    /// Whether the model used every tensor and found all that it needs.
    fn finish(&mut self) -> Result<(), NnError> {
        if !self.missing.is_empty() || !self.rest.is_empty() {
            let mut unknown: Vec<String> = self.rest.keys().cloned().collect();
            unknown.sort_unstable();
            return Err(TorchError::WeightNames { missing: std::mem::take(&mut self.missing), unknown }.into());
        }
        self.mismatch.take().map_or(Ok(()), Err)
    }
}
