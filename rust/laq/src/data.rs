//! Frame pairs for the engine.

use crate::error::LaqError;
use crate::model::LaqModel;
use crate::patches::unit_frames;
use hlrp_data::{CacheProgress, FrameSize, LabelRequest, Mixture, Split};
use hlrp_schema::{LaqConfig, RequestConfig};
use hlrp_train::{DeviceBatch, DeviceVectors, LoaderData, Resumed, disk_rules};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Opens every dataset of the configuration: training samples and validation pairs, frames in the model's size. A resumed run keeps its
/// held-out episodes.
///
/// # Errors
/// A dataset that cannot be read, or an empty validation set.
pub fn open_pairs(
    config: &LaqConfig,
    resumed: Option<&Resumed>,
    progress: &CacheProgress<'_>,
) -> anyhow::Result<LoaderData> {
    let side = usize::try_from(config.model.image_size)?;
    let size = FrameSize { height: side, width: side };
    let mut mixture = Mixture::open(&config.data, size, &disk_rules(&config.cluster, &config.logging), progress)?;
    if let Some(resumed) = resumed {
        mixture = mixture.with_held_out(&resumed.held_out())?;
    }
    let validation = mixture.with_whole_pairs(&config.data.request)?;
    if config.model.triplets.num_frames() == 3 {
        let request = with_third_frame(&config.data.request);
        mixture = mixture.with_request(&request, &request.image_deltas, &LabelRequest::default())?;
        let hint = "use a smaller spacing, or set model.triplets.additivity_weight=0: it needs frame t+2k";
        mixture.require(Split::Train).map_err(|problem| problem.hint(hint))?;
    }
    LoaderData::new(Arc::new(mixture), Arc::new(validation), config.seed)
}

/// The request with the frame as far after the later frame of a pair as that is after the earlier one.
fn with_third_frame(request: &RequestConfig) -> RequestConfig {
    let (first, second) = (request.image_deltas[0], request.image_deltas[1]);
    RequestConfig { image_deltas: vec![first, second, 2.0 * second - first], ..request.clone() }
}

/// As [`relative_actions`], on the CPU.
pub(crate) fn pair_actions(batch: &DeviceBatch) -> Option<Tensor> {
    relative_actions(batch).map(|actions_BA| actions_BA.to_device(Device::Cpu))
}

/// Sum of the actions of a batch that are within the episode, `float32 [B,A]`; none where the dataset has no actions.
pub(crate) fn relative_actions(batch: &DeviceBatch) -> Option<Tensor> {
    let DeviceVectors { values_BTN, is_pad_BT, .. } =
        batch.action.as_ref().filter(|action| action.values_BTN.size()[1] > 0)?;
    let is_real_BT1 = is_pad_BT.logical_not().to_kind(Kind::Float).unsqueeze(-1);
    Some((values_BTN * is_real_BT1).sum_dim_intlist([1].as_slice(), false, Kind::Float))
}

/// Frame pairs of a batch as floats, `[B,2,C,H,W]` in [0, 1].
///
/// # Errors
/// A batch without a camera of the model, or frames that do not fit it.
pub(crate) fn pairs_of(batch: &DeviceBatch, model: &LaqModel) -> Result<Tensor, LaqError> {
    frames_of(batch, model, 2)
}

/// As [`pairs_of`] the frames of a training batch: pairs, and the third frame where `model.triplets` needs it.
pub(crate) fn training_frames_of(batch: &DeviceBatch, model: &LaqModel) -> Result<Tensor, LaqError> {
    frames_of(batch, model, model.config().triplets.num_frames())
}

fn frames_of(batch: &DeviceBatch, model: &LaqModel, num_frames: i64) -> Result<Tensor, LaqError> {
    let pixels_BTCHW = pixels_of(batch, &model.config().cameras)?;
    model.check_num_frames(&pixels_BTCHW, num_frames)?;
    Ok(unit_frames(&pixels_BTCHW))
}

/// The frames of a batch, the views of `cameras` side by side: `uint8 [B,T,C,H,W]`.
///
/// # Errors
/// A batch without one of the cameras.
pub(crate) fn pixels_of(batch: &DeviceBatch, cameras: &[String]) -> Result<Tensor, LaqError> {
    let stream = |role: &String| match batch.images.get(role) {
        Some(stream) => Ok(stream.pixels_BTCHW.shallow_clone()),
        None => Err(LaqError::Stream { role: role.clone(), available: batch.images.keys().cloned().collect() }),
    };
    let views = cameras.iter().map(stream).collect::<Result<Vec<_>, _>>()?;
    Ok(if views.len() == 1 { views[0].shallow_clone() } else { Tensor::cat(&views, -1) })
}
