//! Frame pairs for the engine.

use crate::error::LaqError;
use crate::forward;
use crate::model::LaqModel;
use crate::patches::unit_frames;
use hlrp_data::{CacheProgress, FrameSize, LabelRequest, Mixture, Source, Split};
use hlrp_schema::{LaqConfig, RequestConfig};
use hlrp_torch::World;
use hlrp_train::{DeviceBatch, DeviceVectors, LoaderData, Resumed, disk_rules};
use std::collections::BTreeMap;
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
    let validation = match config.model.decoders.forward_model() {
        Some(forward) => {
            mixture.with_whole_pairs(&forward::validation_request(&config.data.request, forward.num_steps))?
        }
        None => mixture.with_whole_pairs(&config.data.request)?,
    };
    let request = config.model.training_request(&config.data.request);
    if request != config.data.request {
        mixture = mixture.with_request(&request, &request.image_deltas, &LabelRequest::default())?;
    }
    if config.model.triplets.num_frames() == 3 {
        let hint = "use a smaller spacing, or set model.triplets.additivity_weight=0: it needs frame t+2k";
        mixture.require(Split::Train).map_err(|problem| problem.hint(hint))?;
    }
    LoaderData::new(Arc::new(mixture), Arc::new(validation), config.seed)
}

/// The pairs of `mixture` with its training episodes as the validation set, whose pairs are spread evenly; those of sources that have both.
///
/// # Errors
/// Sources that cannot be split.
pub(crate) fn with_training_validated(mixture: &Mixture, request: &RequestConfig) -> anyhow::Result<Mixture> {
    let pairs = mixture.with_whole_pairs(request)?;
    let has_both =
        |source: &&Source| [Split::Train, Split::Validation].iter().all(|split| !source.episodes(*split).is_empty());
    let episodes = |source: &Source| source.episodes(Split::Train).iter().map(|span| span.episode).collect();
    let swapped: BTreeMap<String, Vec<u64>> =
        pairs.sources().iter().filter(has_both).map(|source| (source.name().to_owned(), episodes(source))).collect();
    Ok(pairs.with_held_out(&swapped)?)
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
    Ok(unit_frames(&checked_pixels(batch, model, 2)?))
}

/// As [`pairs_of`] the frames of a training batch: pairs, and a third frame where `model.triplets` or a forward model needs it.
pub(crate) fn training_frames_of(batch: &DeviceBatch, model: &LaqModel, world: &World) -> Result<Tensor, LaqError> {
    let Some(forward) = model.config().decoders.forward_model() else {
        return Ok(unit_frames(&checked_pixels(batch, model, model.config().triplets.num_frames())?));
    };
    let [num_frames, _] = forward::num_frames(forward.num_steps);
    let samples_BTCHW = checked_pixels(batch, model, num_frames)?;
    Ok(unit_frames(&forward::drawn(&samples_BTCHW, forward.num_steps, world)))
}

/// As [`pairs_of`] the frames of a validation batch: pairs, and a third frame where a forward model needs it.
pub(crate) fn validation_frames_of(batch: &DeviceBatch, model: &LaqModel) -> Result<Tensor, LaqError> {
    let Some(forward) = model.config().decoders.forward_model() else { return pairs_of(batch, model) };
    let [_, num_frames] = forward::num_frames(forward.num_steps);
    let samples_BTCHW = checked_pixels(batch, model, num_frames)?;
    Ok(unit_frames(&forward::whole(&samples_BTCHW, forward.num_steps)))
}

/// Pixels `uint8 [B,num_frames,C,H,W]`.
fn checked_pixels(batch: &DeviceBatch, model: &LaqModel, num_frames: i64) -> Result<Tensor, LaqError> {
    let pixels_BTCHW = pixels_of(batch, &model.config().cameras)?;
    model.check_num_frames(&pixels_BTCHW, num_frames)?;
    Ok(pixels_BTCHW)
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
