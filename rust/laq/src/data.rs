//! Frame pairs for the engine.

use crate::error::LaqError;
use crate::model::LaqModel;
use crate::patches::unit_frames;
use hlrp_data::{CacheProgress, FrameSize, Mixture};
use hlrp_schema::LaqConfig;
use hlrp_train::{DeviceBatch, LoaderData, Resumed, disk_rules};
use std::sync::Arc;
use tch::Tensor;

/// The image stream that stage 1 reads.
pub const ROLE: &str = "primary";

/// Opens every dataset of the configuration: training and validation pairs, frames in the model's size. A resumed run keeps its held-out
/// episodes.
///
/// # Errors
/// A dataset that cannot be read or has no stream [`ROLE`], or an empty validation set.
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
    let roles = &mixture.layout().roles;
    if !roles.iter().any(|role| role == ROLE) {
        return Err(LaqError::Stream { role: ROLE.into(), available: roles.clone() }.into());
    }
    let mixture = Arc::new(mixture);
    LoaderData::new(Arc::clone(&mixture), mixture, config.seed)
}

/// Frame pairs of a batch as floats, `[B,2,C,H,W]` in [0, 1].
///
/// # Errors
/// A batch without the stream [`ROLE`], or frames that do not fit the model.
pub(crate) fn pairs_of(batch: &DeviceBatch, model: &LaqModel) -> Result<Tensor, LaqError> {
    let stream = batch
        .images
        .get(ROLE)
        .ok_or_else(|| LaqError::Stream { role: ROLE.into(), available: batch.images.keys().cloned().collect() })?;
    model.check_frames(&stream.pixels_BTCHW)?;
    Ok(unit_frames(&stream.pixels_BTCHW))
}
