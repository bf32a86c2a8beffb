//! The classes `Dataset` and `BatchStream`.

use crate::batch;
use crate::failure::Failure;
use crate::wall::{self, compute};
use hlrp_config::{Check, with_hint};
use hlrp_data::{
    DataError, FrameSize, LoadError, Loader, LoaderStats, Mixture, Position, Shard, Split, ValidationLoader,
};
use hlrp_schema::DataConfig;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

/// Opened LeRobot v3 datasets. Loaders over it share its indices and caches.
///
/// Opens the section `data` of a configuration (`sources`, `request`, `loader`, `cache`), as a mapping or JSON text, every key given.
///
/// `image_size` is the height and width in pixels that frames are brought to.
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct Dataset {
    mixture: Arc<Mixture>,
    config: DataConfig,
    /// The process that opened it.
    owner: u32,
}

/// Batches that decode threads make ahead.
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct BatchStream {
    batches: Arc<Mutex<Batches>>,
    num_batches: Option<usize>,
    /// The process that started it.
    owner: u32,
}

enum Batches {
    Train(Loader),
    Validation(ValidationLoader),
}

impl Batches {
    fn next(&mut self) -> Result<Option<hlrp_data::Batch>, Failure> {
        Ok(match self {
            Self::Train(loader) => Some(loader.next_batch()?),
            Self::Validation(loader) => loader.next().transpose()?,
        })
    }

    fn position(&self) -> Option<Position> {
        match self {
            Self::Train(loader) => Some(loader.position()),
            Self::Validation(_) => None,
        }
    }

    fn stats(&self) -> LoaderStats {
        match self {
            Self::Train(loader) => loader.stats(),
            Self::Validation(loader) => loader.stats(),
        }
    }
}

#[pymethods]
impl Dataset {
    #[new]
    fn new(py: Python<'_>, config: &Bound<'_, PyAny>, image_size: (usize, usize)) -> PyResult<Self> {
        let config: DataConfig = wall::read("data", config)?;
        config.check().map_err(|problem| Failure::value(with_hint(&problem.inside("data"))))?;
        let size = FrameSize { height: image_size.0, width: image_size.1 };
        compute(py, move || {
            let mixture = Mixture::open(&config, size, &hlrp_data::DiskRules::unlimited(), &|_, _, _, _| {})?;
            Ok(Self { mixture: Arc::new(mixture), config, owner: process::id() })
        })
    }

    /// The configuration.
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        wall::write(py, &self.config)
    }

    /// Camera roles that every source has.
    #[getter]
    fn cameras(&self) -> Vec<String> {
        self.mixture.layout().roles.clone()
    }

    /// Samples of a batch.
    #[getter]
    fn batch_size(&self) -> usize {
        self.config.loader.batch_size
    }

    /// Anchor frames of an epoch, over all ranks.
    #[getter]
    fn num_train_samples(&self) -> u64 {
        self.mixture.anchors(Split::Train).len()
    }

    /// Anchor frames held out.
    #[getter]
    fn num_validation_samples(&self) -> u64 {
        self.mixture.anchors(Split::Validation).len()
    }

    /// The endless training stream of one rank: a pure function of seed, rank and position.
    #[pyo3(signature = (*, seed, rank=0, world_size=1, position=None))]
    fn train(
        &self,
        py: Python<'_>,
        seed: u64,
        rank: u64,
        world_size: u64,
        position: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<BatchStream> {
        let position = position
            .map(|position| wall::typed("position", wall::value("position", position)?))
            .transpose()?
            .unwrap_or_default();
        refuse_fork(self.owner)?;
        let mixture = Arc::clone(&self.mixture);
        let shard = Shard { rank, world: world_size };
        let loader = compute(py, move || Ok(Loader::train(&mixture, seed, shard, position)?))?;
        Ok(BatchStream {
            batches: Arc::new(Mutex::new(Batches::Train(loader))),
            num_batches: None,
            owner: process::id(),
        })
    }

    /// One pass over the held-out samples of one rank, the same each time; `limit_batches` spreads that many batches evenly over them.
    #[pyo3(signature = (*, limit_batches=None, rank=0, world_size=1))]
    fn validation(
        &self,
        py: Python<'_>,
        limit_batches: Option<usize>,
        rank: u64,
        world_size: u64,
    ) -> PyResult<BatchStream> {
        refuse_fork(self.owner)?;
        let mixture = Arc::clone(&self.mixture);
        let shard = Shard { rank, world: world_size };
        let loader = compute(py, move || Ok(Loader::validation(&mixture, limit_batches, shard)?))?;
        let num_batches = Some(loader.num_batches());
        Ok(BatchStream {
            batches: Arc::new(Mutex::new(Batches::Validation(loader))),
            num_batches,
            owner: process::id(),
        })
    }

    fn __repr__(&self) -> String {
        let sources: Vec<&String> = self.config.sources.keys().collect();
        format!("Dataset(sources={sources:?}, {} training samples)", self.num_train_samples())
    }
}

/// Refuses any process but `owner`.
///
/// # Errors
/// This process is not the one that opened the dataset or stream.
fn refuse_fork(owner: u32) -> PyResult<()> {
    LoadError::refuse_fork(owner).map_err(|error| Failure::from(DataError::from(error)).into())
}

impl BatchStream {
    /// Asks the loader without the GIL: another thread may be waiting in it.
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        question: impl FnOnce(&mut Batches) -> Result<T, Failure> + Send,
    ) -> PyResult<T> {
        refuse_fork(self.owner)?; // a thread of the other process may have held the lock, which is never released here
        let batches = Arc::clone(&self.batches);
        compute(py, move || question(&mut batches.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[pymethods]
impl BatchStream {
    fn __iter__(stream: Py<Self>) -> Py<Self> {
        stream
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let next = self.ask(py, |batches| batches.next()?.map(batch::tensors_of).transpose())?;
        next.map(|next| batch::to_dict(py, next)).transpose()
    }

    /// Batches of the pass; `None` for the endless training stream.
    #[getter]
    fn num_batches(&self) -> Option<usize> {
        self.num_batches
    }

    /// Position after the last batch; `None` for a validation pass.
    #[getter]
    fn position<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let position = self.ask(py, |batches| Ok(batches.position()))?;
        position.map(|position| wall::write(py, &position)).transpose()
    }

    /// `num_samples`, `num_bad_samples`, `bytes_in_flight`, `max_bytes_in_flight`, and in seconds `worker_busy_s`, `worker_idle_s`,
    /// `consumer_wait_s`.
    #[getter]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.ask(py, |batches| Ok(batches.stats()))?;
        let dict = PyDict::new(py);
        for (name, value) in [
            ("num_samples", stats.num_samples as f64),
            ("num_bad_samples", stats.num_bad_samples as f64),
            ("bytes_in_flight", stats.bytes_in_flight as f64),
            ("max_bytes_in_flight", stats.max_bytes_in_flight as f64),
            ("worker_busy_s", stats.worker_busy.as_secs_f64()),
            ("worker_idle_s", stats.worker_idle.as_secs_f64()),
            ("consumer_wait_s", stats.consumer_wait.as_secs_f64()),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }
}
