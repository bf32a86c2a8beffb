//! Number format of the forward pass.

use crate::Result;
use hlrp_schema::Precision;
use hlrp_torch::{Autocast, AutocastDtype};
use tch::Device;

/// While the guard lives, the forward pass runs in `precision`. Float32 needs no guard.
///
/// # Errors
/// Whatever libtorch refuses.
pub(crate) fn guard(precision: Precision, device: Device) -> Result<Option<Autocast>> {
    Ok(match precision {
        Precision::Bf16Mixed => Some(Autocast::enter(device, AutocastDtype::Bf16)?),
        Precision::Float32 => None,
    })
}
