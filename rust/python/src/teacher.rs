//! The class `Teacher`.

use crate::failure::Failure;
use crate::tensors::{self, PyTensor};
use crate::wall::{self, compute};
use hlrp_laq::{LaqInference, Parts};
use hlrp_schema::policy::TeacherIdentity;
use hlrp_vla::TeacherInit;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// A frozen latent action model (stage 1) that labels frame pairs. It keeps its own weights on its device.
///
/// Frames are `uint8 [B,2,3,H,W]` (time t, time t+k), or float of that shape in [0, 1], which are rounded to bytes. Frames of another
/// size are resized to the teacher's as the data loader does it (bilinear, antialiased). Labels are float32 under any autocast and have no
/// gradient.
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct Teacher {
    labeller: Arc<Mutex<hlrp_vla::Teacher>>,
    identity: TeacherIdentity,
    path: PathBuf,
    weights: TeacherInit,
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
    /// Loads a checkpoint folder or run directory of `hlrp train-laq`, or a folder of `hlrp export-laq`.
    ///
    /// `weights="random"` is the control: the same architecture with fresh weights that `seed` fixes (required then). torch's own random
    /// state is left as it was. `device`: `cpu`, `cuda` or `cuda:N`.
    #[staticmethod]
    #[pyo3(signature = (path, device="cpu", *, weights="trained", seed=None))]
    fn load(py: Python<'_>, path: PathBuf, device: &str, weights: &str, seed: Option<u64>) -> PyResult<Self> {
        let weights = read_weights(weights, seed)?;
        let refuse = |problem: hlrp_config::Problem| Failure::value(hlrp_config::with_hint(&problem));
        let device: hlrp_schema::Device = device.parse().map_err(refuse)?;
        let device = hlrp_train::select_device(device).map_err(Failure::from)?;
        compute(py, move || {
            let labeller = hlrp_vla::Teacher::load(&path, weights, device)?;
            let identity = labeller.identity().clone();
            Ok(Self { labeller: Arc::new(Mutex::new(labeller)), identity, path, weights, device })
        })
    }

    /// `sha256` of the weights, `codebook_size` K (`None` without codes), `code_seq_len` S, `code_dim` D, `image_size` in pixels, `pair`
    /// (`{"unit": "frames" | "seconds", "image_deltas": [0, k]}`): the same as `Artifact.teacher` of a policy that it labelled for.
    #[getter]
    fn identity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        wall::write(py, &self.identity)
    }

    /// Where it computes, such as `cpu` or `cuda:0`.
    #[getter]
    fn device(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        }
    }

    /// Codes `int64 [B,S]` of frame pairs `[B,2,3,H,W]`.
    fn codes(&self, py: Python<'_>, frames: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let frames_BTCHW = frame_pairs(frames)?;
        self.ask(py, move |teacher| Ok(teacher.codes(&frames_BTCHW)?)).map(PyTensor)
    }

    /// Code vectors `float32 [B,S,D]` of codes `int64 [B,S]`: rows of the codebook, each dimension standardised over the K rows.
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
        self.ask(py, move |teacher| Ok(teacher.vectors(&codes_BS.to_device(device))?)).map(PyTensor)
    }

    /// `Targets` of frame pairs `[B,2,3,H,W]`: `latents` `float32 [B,S,D]`, `latent_is_valid` `bool [B]` and, where the teacher has codes,
    /// `latent_codes` `int64 [B,S]`.
    ///
    /// `is_real` is `bool [B,2]`, false where a frame is outside its episode; a pair is valid when both frames are real. All real when
    /// `None`.
    #[pyo3(signature = (frames, is_real=None))]
    fn label<'py>(
        &self,
        py: Python<'py>,
        frames: &Bound<'py, PyAny>,
        is_real: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let frames_BTCHW = frame_pairs(frames)?;
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
        let named = [
            ("latents", target.vectors_BSD),
            ("latent_codes", target.codes_BS),
            ("latent_is_valid", Some(target.is_valid_B)),
        ];
        tensors::dict(py, named.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))))
    }

    /// Codes `int64 [B,S]` of frame pairs `[B,2,3,H,W]`, and the later frame that they predict from the earlier one:
    /// `float32 [B,3,h,w]` in [0, 1], not clamped, in the teacher's size. Needs a teacher with a pixel decoder,
    /// which is read from the checkpoint at each call: for images, not for training loops.
    fn reconstruct(&self, py: Python<'_>, frames: &Bound<'_, PyAny>) -> PyResult<(PyTensor, PyTensor)> {
        let (frames_BTCHW, path, device) = (frame_pairs(frames)?, self.path.clone(), self.device);
        let (side, weights) = (self.identity.image_size, self.weights);
        let (codes_BS, pixels_BCHW) = compute(py, move || {
            let model = match weights {
                TeacherInit::Trained => LaqInference::load(&path, Parts::All, device)?,
                TeacherInit::Random { .. } => {
                    return Err(Failure::value(
                        "teacher: random weights reconstruct nothing\nhint: load the teacher with weights=\"trained\"",
                    ));
                }
            };
            Ok(model.reconstruct(&hlrp_train::resize_frames(&frames_BTCHW, [side; 2]))?)
        })?;
        Ok((PyTensor(codes_BS), PyTensor(pixels_BCHW)))
    }

    fn __repr__(&self) -> String {
        let TeacherIdentity { codebook_size, code_seq_len, code_dim, .. } = self.identity;
        let codes = codebook_size.map_or("continuous".to_owned(), |size| format!("{size} codes"));
        format!("Teacher({:?}, {codes}, {code_seq_len} slots of {code_dim} dimensions)", self.path.display())
    }
}

fn read_weights(weights: &str, seed: Option<u64>) -> Result<TeacherInit, Failure> {
    match (weights, seed) {
        ("trained", _) => Ok(TeacherInit::Trained),
        ("random", Some(seed)) => Ok(TeacherInit::Random { seed }),
        ("random", None) => Err(Failure::value("teacher: random weights need a seed\nhint: give seed=0, or any other")),
        (other, _) => {
            Err(Failure::value(format!("teacher: unknown weights `{other}`\nhint: choose trained or random")))
        }
    }
}

/// Largest value of a byte.
const BYTE_MAX: f64 = 255.0;

/// Frame pairs `uint8 [B,2,3,H,W]`, of bytes or of the floats in [0, 1] that LeRobot makes of them.
fn frame_pairs(frames: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let frames_BTCHW = tensors::tensor("frames", frames)?;
    let (kind, size) = (frames_BTCHW.kind(), frames_BTCHW.size());
    let is_pair = size.len() == 5 && size[1] == 2 && size[2] == 3;
    match kind {
        Kind::Uint8 if is_pair => Ok(frames_BTCHW),
        Kind::Float if is_pair => {
            let bytes = frames_BTCHW.detach().clamp(0.0, 1.0) * BYTE_MAX;
            Ok(bytes.round().to_kind(Kind::Uint8))
        }
        _ => {
            let text =
                format!("frames: this is {kind:?} {size:?} where uint8 or float [B, 2, 3, height, width] is needed");
            Err(Failure::value(format!("{text}\nhint: give pairs of frames (time t, time t+k)")).into())
        }
    }
}
