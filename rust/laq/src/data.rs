//! Frame pairs for the engine.

use crate::LaqError;
use hlrp_data::{CacheProgress, FrameSize, Mixture};
use hlrp_schema::LaqConfig;
use hlrp_train::LoaderData;
use std::sync::Arc;

/// The image stream that stage 1 reads.
pub const ROLE: &str = "primary";

/// Opens every dataset of the configuration: training and validation pairs, frames in the model's size.
///
/// # Errors
/// A dataset that cannot be read or has no stream [`ROLE`], or an empty validation set.
pub fn open_pairs(config: &LaqConfig, progress: &CacheProgress<'_>) -> anyhow::Result<LoaderData> {
    let side = usize::try_from(config.model.image_size)?;
    let mixture = Mixture::open(&config.data, FrameSize { height: side, width: side }, progress)?;
    let roles = &mixture.layout().roles;
    if !roles.iter().any(|role| role == ROLE) {
        return Err(LaqError::Stream { role: ROLE.into(), available: roles.clone() }.into());
    }
    let mixture = Arc::new(mixture);
    LoaderData::new(Arc::clone(&mixture), mixture, config.seed)
}
