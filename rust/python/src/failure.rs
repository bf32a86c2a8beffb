//! Errors of the crates below as Python exceptions with the same text.

use hlrp_config::secret::redact;
use hlrp_config::{Hint, Problem, with_hint};
use hlrp_data::{DataError, LoadError};
use hlrp_laq::LaqError;
use hlrp_nn::NnError;
use hlrp_torch::TorchError;
use hlrp_train::TrainError;
use hlrp_vla::VlaError;
use pyo3::exceptions::{PyException, PyFileNotFoundError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::GILOnceCell;
use pyo3::types::{IntoPyDict, PyTuple, PyType};
use std::path::Path;

/// Which exception a failure becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `HlrpError`.
    General,
    /// `HlrpValueError`.
    Value,
    /// `HlrpFileNotFoundError`.
    FileNotFound,
}

/// Why a call fails.
#[derive(Debug)]
pub(crate) struct Failure {
    class: Class,
    text: String,
}

/// The exception classes: `HlrpError`, `HlrpValueError`, `HlrpFileNotFoundError`.
struct Exceptions([Py<PyType>; 3]);

static EXCEPTIONS: GILOnceCell<Exceptions> = GILOnceCell::new();

impl Failure {
    /// An argument that cannot be used.
    pub(crate) fn value(text: impl Into<String>) -> Self {
        Self { class: Class::Value, text: text.into() }
    }

    /// Whatever else went wrong.
    pub(crate) fn general(text: impl Into<String>) -> Self {
        Self { class: Class::General, text: text.into() }
    }

    /// From an error about `path`: the file is missing, or its content is wrong.
    fn at(path: &Path, error: &(impl std::error::Error + Hint)) -> Self {
        Self { class: if path.exists() { Class::Value } else { Class::FileNotFound }, text: with_hint(error) }
    }

    /// From what a panic says. The bindings of libtorch panic on its exceptions.
    pub(crate) fn panic(text: &str) -> Self {
        match TorchError::from_panic(text) {
            Some(TorchError::Exception { message, .. }) => Self::general(format!("libtorch: {message}")),
            _ => Self::general(format!("{text}\nhint: this is a defect of hlrp_rs; please report it")),
        }
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        Python::with_gil(|py| {
            let text = redact(&failure.text);
            let Some(Exceptions(classes)) = EXCEPTIONS.get(py) else { return PyException::new_err(text) };
            let class = &classes[failure.class as usize];
            Self::from_type(class.bind(py).clone(), text)
        })
    }
}

/// Makes the exception classes and adds them to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let make = |name: &str, documentation: &str, bases: Vec<Bound<'_, PyType>>| -> PyResult<Py<PyType>> {
        let body = [("__module__", "hlrp_rs"), ("__doc__", documentation)].into_py_dict(py)?;
        let class = py.get_type::<PyType>().call1((name, PyTuple::new(py, bases)?, body))?;
        Ok(class.downcast_into::<PyType>()?.unbind())
    };
    let base = make(
        "HlrpError",
        "Base of all errors of this package, and what libtorch refuses.",
        vec![py.get_type::<PyException>()],
    )?;
    let value = make(
        "HlrpValueError",
        "A description, tensor or option that cannot be used.",
        vec![base.bind(py).clone(), py.get_type::<PyValueError>()],
    )?;
    let file_not_found = make(
        "HlrpFileNotFoundError",
        "A file or folder that is not there.",
        vec![base.bind(py).clone(), py.get_type::<PyFileNotFoundError>()],
    )?;
    module.add("HlrpError", &base)?;
    module.add("HlrpValueError", &value)?;
    module.add("HlrpFileNotFoundError", &file_not_found)?;
    // A second interpreter in this process would keep the classes of the first.
    let _ = EXCEPTIONS.set(py, Exceptions([base, value, file_not_found]));
    Ok(())
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::value(with_hint(&problem))
    }
}

impl From<VlaError> for Failure {
    fn from(error: VlaError) -> Self {
        match error {
            VlaError::File { ref path, .. } => Self::at(path, &error),
            VlaError::Nn(error) => error.into(),
            VlaError::Data(error) => error.into(),
            VlaError::Laq(error) => error.into(),
            VlaError::Torch(error) => error.into(),
            VlaError::Track(error) => Self::general(with_hint(&error)),
            other => Self::value(with_hint(&other)),
        }
    }
}

impl From<NnError> for Failure {
    fn from(error: NnError) -> Self {
        match error {
            NnError::NotFound { .. } => Self { class: Class::FileNotFound, text: with_hint(&error) },
            NnError::File { ref path, .. } => Self::at(path, &error),
            other => Self::value(with_hint(&other)),
        }
    }
}

impl From<LaqError> for Failure {
    fn from(error: LaqError) -> Self {
        match error {
            LaqError::Checkpoint { ref path, .. } => Self::at(path, &error),
            LaqError::Weights(error) => error.into(),
            other => Self::value(with_hint(&other)),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::NotACheckpoint { ref path, .. }
            | TrainError::Damaged { ref path, .. }
            | TrainError::Io { ref path, .. } => Self::at(path, &error),
            other => Self::value(with_hint(&other)),
        }
    }
}

/// The file or folder that an error is about.
fn path_of(error: &DataError) -> Option<&Path> {
    match error {
        DataError::Io { path, .. } | DataError::File { path, .. } | DataError::Dataset { root: path, .. } => Some(path),
        DataError::Source { source, .. } => path_of(source),
        _ => None,
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        if let Some(path) = path_of(&error) {
            return Self::at(path, &error);
        }
        match error {
            DataError::Load(LoadError::WorkerPanicked { .. } | LoadError::TooManyBadSamples { .. }) => {
                Self::general(with_hint(&error))
            }
            other => Self::value(with_hint(&other)),
        }
    }
}

impl From<TorchError> for Failure {
    fn from(error: TorchError) -> Self {
        match error {
            TorchError::UnknownDevice(_) => Self::value(with_hint(&error)),
            other => Self::general(with_hint(&other)),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let error = match error.downcast::<TrainError>() {
            Ok(error) => return error.into(),
            Err(error) => error,
        };
        match error.downcast::<LaqError>() {
            Ok(error) => error.into(),
            Err(error) => Self::value(format!("{error:#}")),
        }
    }
}
