//! The class `Teacher`.

use crate::compute::compute;
use crate::failure::Failure;
use crate::{description, tensors};
use hlrp_laq::{LaqInference, Parts};
use hlrp_vla::TeacherIdentity;
use pyo3::prelude::*;
use pyo3_tch::PyTensor;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// See `_core.pyi`. The weights are the teacher's own and never change.
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct Teacher {
    labeller: Arc<Mutex<hlrp_vla::Teacher>>,
    identity: TeacherIdentity,
    path: PathBuf,
    device: Device,
}

impl Teacher {
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        question: impl FnOnce(&hlrp_vla::Teacher) -> Result<T, Failure> + Send,
    ) -> PyResult<T> {
        let labeller = Arc::clone(&self.labeller);
        compute(py, move || question(&labeller.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[pymethods]
impl Teacher {
    #[staticmethod]
    #[pyo3(signature = (path, device="cpu", *, weights="trained", seed=None))]
    fn load(py: Python<'_>, path: PathBuf, device: &str, weights: &str, seed: Option<u64>) -> PyResult<Self> {
        match (weights, seed) {
            ("trained", None) => {}
            _ => {
                let text = format!("teacher: there are no weights `{weights}`\nhint: choose trained");
                return Err(Failure::value(text).into());
            }
        }
        let device = hlrp_torch::select_device(device).map_err(Failure::from)?;
        compute(py, move || {
            let labeller = hlrp_vla::Teacher::load(&path, device)?;
            let identity = labeller.identity().clone();
            Ok(Self { labeller: Arc::new(Mutex::new(labeller)), identity, path, device })
        })
    }

    #[getter]
    fn identity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        description::write(py, &self.identity)
    }

    #[getter]
    fn device(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        }
    }

    fn codes(&self, py: Python<'_>, frames: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let frames_BTCHW = self.frames(frames)?;
        self.ask(py, move |teacher| Ok(teacher.codes(&frames_BTCHW)?)).map(PyTensor)
    }

    fn vectors(&self, py: Python<'_>, codes: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let codes_BS = tensors::tensor("codes", codes)?;
        let num_slots = self.identity.code_seq_len;
        let size = codes_BS.size();
        if codes_BS.kind() != Kind::Int64 || size.len() != 2 || size[1] != num_slots {
            let found = format!("{:?} {size:?}", codes_BS.kind());
            let text = format!("codes: this is {found} where int64 [B, {num_slots}] is needed");
            return Err(Failure::value(format!("{text}\nhint: give what Teacher.codes returned")).into());
        }
        let device = self.device;
        self.ask(py, move |teacher| Ok(teacher.vectors(&codes_BS.to_device(device)))).map(PyTensor)
    }

    #[pyo3(signature = (frames, is_real=None))]
    fn label(
        &self,
        py: Python<'_>,
        frames: &Bound<'_, PyAny>,
        is_real: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(PyTensor, PyTensor)> {
        let frames_BTCHW = self.frames(frames)?;
        let shape = frames_BTCHW.size()[..2].to_vec();
        let is_real_BT = match is_real {
            Some(is_real) => tensors::tensor("is_real", is_real)?,
            None => Tensor::ones(&shape, (Kind::Bool, frames_BTCHW.device())),
        };
        if is_real_BT.kind() != Kind::Bool || is_real_BT.size() != shape {
            let found = format!("{:?} {:?}", is_real_BT.kind(), is_real_BT.size());
            let text = format!("is_real: this is {found} where bool {shape:?} is needed");
            return Err(Failure::value(format!("{text}\nhint: false marks a frame outside its episode")).into());
        }
        let target = self.ask(py, move |teacher| Ok(teacher.label(&frames_BTCHW, &is_real_BT)?))?;
        Ok((PyTensor(target.codes_BSD), PyTensor(target.is_valid_B)))
    }

    fn reconstruct(&self, py: Python<'_>, frames: &Bound<'_, PyAny>) -> PyResult<(PyTensor, PyTensor)> {
        let (frames_BTCHW, path, device) = (self.frames(frames)?, self.path.clone(), self.device);
        let side = self.identity.image_size;
        let (codes_BS, pixels_BCHW) = compute(py, move || {
            let model = LaqInference::load(&path, Parts::All, device)?;
            Ok(model.reconstruct(&hlrp_vla::resize_frames(&frames_BTCHW, side))?)
        })?;
        Ok((PyTensor(codes_BS), PyTensor(pixels_BCHW)))
    }

    fn __repr__(&self) -> String {
        let TeacherIdentity { codebook_size, code_seq_len, code_dim, .. } = self.identity;
        format!("Teacher({:?}, {codebook_size} codes, {code_seq_len} slots of {code_dim} numbers)", self.path.display())
    }
}

impl Teacher {
    /// Frame pairs `uint8 [B,2,3,H,W]`.
    fn frames(&self, frames: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        let frames_BTCHW = tensors::tensor("frames", frames)?;
        let size = frames_BTCHW.size();
        if frames_BTCHW.kind() == Kind::Uint8 && size.len() == 5 && size[1] == 2 && size[2] == 3 {
            return Ok(frames_BTCHW);
        }
        let text = format!("frames: this is {:?} {size:?} where uint8 [B, 2, 3, height, width] is needed", frames_BTCHW.kind());
        Err(Failure::value(format!("{text}\nhint: give pairs of frames (time t, time t+k)")).into())
    }
}
