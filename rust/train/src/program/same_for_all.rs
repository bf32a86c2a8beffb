//! Makes sure that all processes of a run have the same settings, checkpoint and inputs. Their paths may differ.

use crate::{
    data::SourceRecord,
    error::TrainError,
    resume::{Resumed, shared_settings},
};
use hlrp_config::Composed;
use hlrp_torch::World;
use hlrp_track::run::Artifact;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use tch::Device;

/// Refuses processes whose settings, or kind of device, differ from those of the first one. A `device` that cannot be used is an error of its own
/// process alone, after all have compared.
///
/// # Errors
/// [`TrainError::Disagreement`] with the first setting that differs, `device` itself, or another process is gone.
pub(super) fn ensure_same_settings(
    world: &World,
    composed: &Composed,
    device: anyhow::Result<Device>,
) -> anyhow::Result<Device> {
    let kind = if device.as_ref().is_ok_and(|device| device.is_cuda()) { "cuda" } else { "cpu" };
    let own = format!("{}device of the process = {kind}\n", shared_settings(composed));
    let first = first_if_other(world, &own)?;
    let device = device?;
    let Some(first) = first else { return Ok(device) };
    if let Some((own, first)) = own.lines().zip(first.lines()).find(|(own, first)| own != first) {
        let hint = "start all processes with the same arguments, in the same folder, with the same config/";
        return refuse(world, "a different configuration", own, first, hint);
    }
    Ok(device)
}

/// Refuses processes that resume different checkpoints.
///
/// # Errors
/// [`TrainError::Disagreement`], or another process is gone.
pub(super) fn ensure_same_checkpoint(world: &World, resumed: Option<&Resumed>) -> anyhow::Result<()> {
    let own = resumed.map_or_else(|| "none".to_owned(), |resumed| resumed.identity.clone());
    let Some(first) = first_if_other(world, &own)? else { return Ok(()) };
    let hint = "give all processes the same run directory, on a file system that all machines share";
    refuse(world, "a different checkpoint", &own, &first, hint)
}

/// A dataset or a file of weights as one process finds it.
#[derive(PartialEq, Serialize, Deserialize)]
struct Input {
    /// Its summary, for an error.
    summary: String,
    /// Episodes that are held out for validation.
    held_out: Vec<u64>,
}

/// Refuses processes that read other datasets, or start from other weights, than the first one.
///
/// # Errors
/// [`TrainError::Disagreement`] with the first difference, or another process is gone.
pub(super) fn ensure_same_inputs(
    world: &World,
    sources: &BTreeMap<String, SourceRecord>,
    inputs: &[Artifact],
) -> anyhow::Result<()> {
    let dataset = |(name, record): (&String, &SourceRecord)| {
        let SourceRecord { fingerprint, num_episodes, held_out } = record;
        let num_held_out = held_out.len();
        let summary = format!("{num_episodes} episodes, {num_held_out} of them held out, fingerprint {fingerprint}");
        (format!("dataset (data.sources.{name}.root)"), Input { summary, held_out: held_out.clone() })
    };
    let weights = |Artifact { role, sha256, .. }: &Artifact| {
        let digest = sha256.as_ref().map(|digest| format!("SHA-256 {digest}"));
        let summary = digest.unwrap_or_else(|| "file not found".to_owned());
        (format!("file of weights ({role})"), Input { summary, held_out: Vec::new() })
    };
    let own: BTreeMap<String, Input> = sources.iter().map(dataset).chain(inputs.iter().map(weights)).collect();
    let Some(first) = first_if_other(world, &own)? else { return Ok(()) };
    let hint = "give all processes the same files, on a file system that all machines share or as equal copies";
    let summary = |inputs: &BTreeMap<String, Input>, name: &str| {
        inputs.get(name).map_or_else(|| "none".to_owned(), |input| input.summary.clone())
    };
    match own.keys().chain(first.keys()).find(|name| own.get(*name) != first.get(*name)) {
        Some(name) => refuse(world, &format!("a different {name}"), &summary(&own, name), &summary(&first, name), hint),
        None => Ok(()),
    }
}

/// The value of rank 0, if it differs from `own`.
fn first_if_other<T: PartialEq + Serialize + DeserializeOwned>(world: &World, own: &T) -> anyhow::Result<Option<T>> {
    let first = world.all_gather_text(&serde_json::to_string(own)?)?.swap_remove(0);
    let first = serde_json::from_str(&first)?;
    Ok((first != *own).then_some(first))
}

/// The error of a process that has `what`, which is `own`, where the first process has `first`.
fn refuse<T>(world: &World, what: &str, own: &str, first: &str, hint: &'static str) -> anyhow::Result<T> {
    let rank = world.rank();
    let message = format!("rank {rank} has {what} than rank 0: {own} on rank {rank}, {first} on rank 0");
    anyhow::bail!(TrainError::Disagreement { message, hint })
}
