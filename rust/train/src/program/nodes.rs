//! Which process samples the system metrics of which machine.

use hlrp_torch::{TorchError, World};
use hlrp_track::{host::hostname, sinks::wandb};
use std::time::Duration;

/// How often this process samples the system metrics of its machine for the first process, which has the settings `wandb`: the first
/// process of each other machine does. Where there are several, the first process names its own as well.
///
/// # Errors
/// A process that is gone.
pub(super) fn sampling_interval(
    world: &World,
    wandb: Option<&mut wandb::Settings>,
) -> Result<Option<Duration>, TorchError> {
    let interval = wandb.as_ref().and_then(|settings| settings.stats_interval());
    let interval = interval.map(|interval| interval.as_secs_f64().to_string()).unwrap_or_default();
    let intervals = world.all_gather_text(&interval)?;
    let hosts = world.all_gather_text(&hostname())?;
    if let Some(settings) = wandb
        && hosts.iter().any(|host| *host != hosts[0])
    {
        settings.name_node(&hosts[0]);
    }
    let is_first = hosts.iter().position(|host| *host == hosts[world.rank()]) == Some(world.rank());
    let seconds = intervals[0].parse().ok().filter(|_| is_first && !world.is_main());
    Ok(seconds.map(Duration::from_secs_f64))
}
