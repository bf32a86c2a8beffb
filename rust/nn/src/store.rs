//! The ordered list of a model's tensors.

use crate::{NnError, weights};
use std::cell::RefCell;
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
}

/// A model's parameters and buffers, in the order of their registration.
pub struct Store {
    device: Device,
    entries: RefCell<Vec<Entry>>,
}

impl Store {
    /// An empty store whose tensors will live on `device`.
    pub fn new(device: Device) -> Self {
        Self { device, entries: RefCell::new(Vec::new()) }
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

    fn select(&self, keep: impl Fn(&Entry) -> bool) -> Vec<(String, Tensor)> {
        let entries = self.entries.borrow();
        entries
            .iter()
            .filter(|entry| keep(entry))
            .map(|entry| (entry.name.clone(), entry.tensor.shallow_clone()))
            .collect()
    }

    fn register(&self, name: String, tensor: Tensor, trainable: bool) -> Tensor {
        let mut entries = self.entries.borrow_mut();
        assert!(entries.iter().all(|entry| entry.name != name), "two tensors are named `{name}`");
        let handle = tensor.shallow_clone();
        entries.push(Entry { name, tensor, trainable });
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
        let tensor = no_grad(|| init.tensor(shape).to_device(self.store.device)).set_requires_grad(true);
        self.store.register(self.full_name(name), tensor, true)
    }

    /// Registers a buffer and returns a handle to it.
    pub fn buffer(&self, name: &str, value: &Tensor) -> Tensor {
        self.store.register(self.full_name(name), value.to_device(self.store.device), false)
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
