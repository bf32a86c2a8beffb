//! The ordered list of a model's tensors.

use crate::given::Given;
use crate::{NnError, weights};
use std::cell::RefCell;
use std::collections::HashMap;
use tch::{Device, Kind, Tensor, no_grad};

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All the same number.
    Constant(f64),
    /// N(0, 1).
    Normal,
    /// N(0, σ²) with this σ.
    ScaledNormal(f64),
    /// U(−1/√fan_in, 1/√fan_in), PyTorch's default for linear and convolution layers.
    FanIn(i64),
}

impl Init {
    /// Draws from the CPU's generator whatever the device, so that one seed gives one model.
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
    /// Each is drawn as its [`Init`] says.
    Drawn,
    /// Each has its shape and no memory.
    Sketched,
    /// The caller has them.
    Given(RefCell<Given>),
}

/// A model's parameters and buffers, in the order of their registration.
pub struct Store {
    device: Device,
    origin: Origin,
    entries: RefCell<Vec<Entry>>,
}

impl Store {
    /// An empty store whose tensors will live on `device`, with fresh values.
    pub fn new(device: Device) -> Self {
        Self::with_origin(device, Origin::Drawn)
    }

    /// An empty store for a model of which only names and shapes are wanted: its tensors must not be written.
    pub fn sketch() -> Self {
        Self::with_origin(Device::Cpu, Origin::Sketched)
    }

    /// A store that hands out the tensors of the caller by name instead of making its own. Nothing is copied or changed: a parameter carries a
    /// gradient if its tensor does. What does not fit is told by [`Store::finish`].
    pub fn over(tensors: HashMap<String, Tensor>) -> Self {
        let device = tensors.values().next().map_or(Device::Cpu, Tensor::device);
        Self::with_origin(device, Origin::Given(RefCell::new(Given::new(tensors))))
    }

    fn with_origin(device: Device, origin: Origin) -> Self {
        Self { device, origin, entries: RefCell::new(Vec::new()) }
    }

    /// To be called when a model is complete and before it computes: checks that the caller's tensors are exactly its own.
    ///
    /// # Errors
    /// A missing or unknown tensor, or one of another shape or number format.
    pub fn finish(&self) -> Result<(), NnError> {
        match &self.origin {
            Origin::Given(given) => given.borrow_mut().finish(),
            Origin::Drawn | Origin::Sketched => Ok(()),
        }
    }

    /// Where names start.
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
        weights::load_strict(&self.state(), source)
    }

    /// Makes every parameter constant: no gradient is ever computed for it.
    pub fn freeze(&self) {
        for entry in self.entries.borrow_mut().iter_mut() {
            entry.tensor = entry.tensor.set_requires_grad(false);
        }
    }

    /// Freezes the parameters whose names `matches` picks and gives their number: they get no gradient and count as buffers from then on.
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

    /// Names of the parameters that a caller may also give in bfloat16.
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
        let mut entries = self.entries.borrow_mut();
        // The caller's tensors have one name each already.
        let is_new = || matches!(self.origin, Origin::Given(_)) || entries.iter().all(|entry| entry.name != name);
        assert!(is_new(), "two tensors are named `{name}`");
        let handle = tensor.shallow_clone();
        entries.push(Entry { name, tensor, trainable, is_castable });
        handle
    }
}

/// A place in the tree of names, such as `enc_spatial_transformer.layers.0`.
#[derive(Clone)]
pub struct Scope<'a> {
    store: &'a Store,
    prefix: String,
}

impl Scope<'_> {
    /// The place `name` below this one.
    #[must_use]
    pub fn child(&self, name: impl std::fmt::Display) -> Self {
        Self { store: self.store, prefix: self.full_name(name) }
    }

    /// Registers a float32 parameter and returns a handle to it.
    pub fn parameter(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.add_parameter(name, shape, init, &[Kind::Float])
    }

    /// Registers a parameter of a matrix product that runs under autocast. A caller who has its own tensors may give it in bfloat16, which
    /// changes no result and saves the cast.
    pub fn castable(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.add_parameter(name, shape, init, &[Kind::Float, Kind::BFloat16])
    }

    fn add_parameter(&self, name: &str, shape: &[i64], init: Init, kinds: &[Kind]) -> Tensor {
        let name = self.full_name(name);
        let tensor = match &self.store.origin {
            Origin::Drawn => no_grad(|| init.tensor(shape).to_device(self.store.device)).set_requires_grad(true),
            Origin::Sketched => Tensor::zeros([], (Kind::Float, Device::Cpu)).expand(shape, false),
            Origin::Given(given) => given.borrow_mut().take(&name, kinds, shape),
        };
        self.store.register(name, tensor, true, kinds.len() > 1)
    }

    /// Registers a buffer and returns a handle to it.
    pub fn buffer(&self, name: &str, value: &Tensor) -> Tensor {
        let name = self.full_name(name);
        let tensor = match &self.store.origin {
            Origin::Drawn | Origin::Sketched => value.to_device(self.store.device),
            Origin::Given(given) => given.borrow_mut().take(&name, &[value.kind()], &value.size()),
        };
        self.store.register(name, tensor, false, false)
    }

    /// Where the tensors live.
    pub fn device(&self) -> Device {
        self.store.device
    }

    /// Parameters and buffers below this place, under their names from here on.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let prefix = self.full_name("");
        let below = |(name, tensor): (String, Tensor)| name.strip_prefix(&prefix).map(|name| (name.to_owned(), tensor));
        self.store.state().into_iter().filter_map(below).collect()
    }

    fn full_name(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}
