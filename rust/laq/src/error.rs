//! What can go wrong in stage 1 besides the engine.

use hlrp_config::{Hint, HintOf, hint_of};
use std::error::Error;
use std::path::PathBuf;

/// An error of this crate. Its text names the key or file.
#[derive(Debug, thiserror::Error)]
pub enum LaqError {
    /// Frames of a shape that does not fit the model.
    #[error("frames of shape {found:?} do not fit the model: it needs {expected}")]
    Frames {
        /// Shape of the batch.
        found: Vec<i64>,
        /// Shape in words.
        expected: String,
    },
    /// A batch without the image stream that this stage reads.
    #[error("the batch has no image stream `{role}`, only {available:?}")]
    Stream {
        /// The role asked for.
        role: String,
        /// The roles that exist.
        available: Vec<String>,
    },
    /// A checkpoint folder that is not one of this stage.
    #[error("{path}: {problem}", path = path.display())]
    Checkpoint {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A decoder that the model was built without.
    #[error("this model has no {0} decoder")]
    NoDecoder(&'static str),
    /// Codes of a model whose latent is continuous.
    #[error("this model has no codes: its latent actions are continuous")]
    NoCodes,
    /// A checkpoint without codes for what needs them.
    #[error("{path} has no codes: its latent actions are continuous", path = path.display())]
    CheckpointWithoutCodes {
        /// The checkpoint folder or run directory.
        path: PathBuf,
    },
    /// Weights of the predecessor of a model with other parts.
    #[error("{cause}")]
    Import {
        /// The tensors.
        cause: hlrp_nn::NnError,
        /// What gives the model the same parts.
        overrides: String,
    },
    /// The weights of a flow teacher that cannot be read.
    #[error("{section}.teacher_weights: {cause}")]
    FlowTeacher {
        /// Where the configuration describes the teacher.
        section: &'static str,
        /// What is wrong.
        cause: hlrp_nn::NnError,
    },
    /// A dataset in which it is not clear which cameras the model sees, or that lacks them.
    #[error("{dataset}: which camera the model sees is not clear: it has {num_views}; there are {available:?}", dataset = dataset.display())]
    Camera {
        /// Folder of the dataset.
        dataset: PathBuf,
        /// Keys of its cameras.
        available: Vec<String>,
        /// Cameras of the model.
        num_views: i64,
    },
    /// Labels that a stopped command left for the same folder, of another model, dataset or option.
    #[error("{path} has labels of another checkpoint, dataset or option", path = path.display())]
    OtherLabels {
        /// The folder.
        path: PathBuf,
    },
    /// Actions that are to be labels of a dataset without actions.
    #[error("{dataset} has no feature `action`", dataset = dataset.display())]
    NoActions {
        /// The dataset.
        dataset: PathBuf,
    },
    /// A validation without samples.
    #[error("the validation set is empty")]
    NoValidationData,
    /// Weights that cannot be read or do not fit.
    #[error(transparent)]
    Weights(#[from] hlrp_nn::NnError),
}

impl Hint for LaqError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Frames { .. } => {
                "set data.request.image_deltas to two offsets and let the loader resize to model.image_size".into()
            }
            Self::Stream { role, .. } => {
                format!("map a camera of every source to `{role}` under data.sources.<name>.cameras")
            }
            Self::Checkpoint { .. } => {
                "give a checkpoint folder or run directory of `hlrp train-laq`, or a folder of `hlrp export-laq`".into()
            }
            Self::NoDecoder(name) => format!("enable model.decoders.{name} when training"),
            Self::NoCodes | Self::CheckpointWithoutCodes { .. } => {
                "choose a model that was trained with a discrete model/quantizer".into()
            }
            Self::Import { overrides, .. } => format!("the weights are of a model with {overrides}"),
            Self::FlowTeacher { section, .. } => format!(
                "convert torchvision's weights as docs/laq.md (Flow teachers) says and name the file in \
                 {section}.teacher_weights; or choose {section}.teacher=lucas_kanade, which needs none"
            ),
            Self::Camera { num_views: 1, .. } => "name one: --camera KEY".into(),
            Self::Camera { num_views, .. } => {
                format!("name {num_views} in the order of model.cameras: --camera KEY --camera KEY")
            }
            Self::OtherLabels { .. } => "give the options of that command, or another --out".into(),
            Self::NoActions { .. } => "give --source teacher, or a dataset with actions".into(),
            Self::NoValidationData => "raise data.sources.<name>.num_val_episodes".into(),
            Self::Weights(error) => return error.hint(),
        };
        Some(hint)
    }
}

/// The error types of this crate and below whose hints a program prints.
pub const HINTS: &[HintOf] = &[hint_of::<LaqError>, hint_of::<hlrp_nn::NnError>, of_engine];

fn of_engine(error: &(dyn Error + 'static)) -> Option<String> {
    hlrp_train::HINTS.iter().find_map(|hint| hint(error))
}
