//! Whether all processes of a run read the same: folders may have other paths, and other content, on each machine.

use crate::{data::SourceRecord, error::TrainError};
use hlrp_torch::World;
use hlrp_track::run::Artifact;
use std::collections::BTreeMap;

/// Refuses processes that read other datasets, or start from other weights, than the first one.
///
/// # Errors
/// [`TrainError::Disagreement`] with the first difference, or another process is gone.
pub(super) fn ensure_same_inputs(
    world: &World,
    sources: &BTreeMap<String, SourceRecord>,
    inputs: &[Artifact],
) -> anyhow::Result<()> {
    let mut own: Vec<[String; 3]> = Vec::new();
    for (name, record) in sources {
        let SourceRecord { fingerprint, num_episodes, held_out } = record;
        let shown = format!("{num_episodes} episodes, {} of them held out, fingerprint {fingerprint}", held_out.len());
        own.push([format!("dataset (data.sources.{name}.root)"), shown, serde_json::to_string(held_out)?]);
    }
    for Artifact { role, sha256, .. } in inputs {
        let digest =
            sha256.as_deref().map_or_else(|| "none on its disk".to_owned(), |digest| format!("SHA-256 {digest}"));
        own.push([format!("file of weights ({role})"), digest, String::new()]);
    }
    let first = world.all_gather_text(&serde_json::to_string(&own)?)?.swap_remove(0);
    let first: Vec<[String; 3]> = serde_json::from_str(&first)?;
    if let Some((own, first)) = own.iter().zip(&first).find(|(own, first)| own != first) {
        let rank = world.rank();
        let message =
            format!("rank {rank} has another {} than rank 0: {}, where rank 0 has {}", own[0], own[1], first[1]);
        let hint = "give all processes the same files, on a file system that all machines share or as equal copies";
        anyhow::bail!(TrainError::Disagreement { message, hint });
    }
    Ok(())
}
