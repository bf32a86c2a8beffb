//! A stage 2 artifact of the Python predecessor as one of this project.

use super::manifest::Manifest;
use super::names;
use crate::archs::VlaModel;
use crate::artifact::{Artifact, Provenance, SaveOptions};
use crate::freeze::is_named;
use crate::setup::{complete, teacher_identity};
use hlrp_config::{Composed, Problem};
use hlrp_nn::foreign::{load_converted, read_converted};
use hlrp_schema::policy::{DataFacts, FeatureFacts, Mode, Scaling, ScalingMode};
use hlrp_schema::{PolicySpec, StageConfig, VlaConfig};
use hlrp_track::console;
use hlrp_track::fs::OnExisting;
use hlrp_train::disk_rules;
use std::collections::BTreeMap;
use std::path::Path;
use tch::Device;

/// Reads the weights of the safetensors file `path`, which have the predecessor's names, into the policy that the composed experiment describes, and
/// publishes it as the artifact `out`. The predecessor's manifest is beside them. Says what is new and in what the two programs differ.
///
/// # Errors
/// An invalid setting, a file of another format, a manifest that contradicts the experiment, tensors that the policy lacks, has in other shapes, or
/// does not have, or an `out` that exists: the text names them.
pub fn import(composed: &Composed, path: &Path, out: &Path) -> anyhow::Result<()> {
    let config = VlaConfig::of_run(composed)?;
    let found = read_converted(path)?;
    let manifest = Manifest::beside(path)?;
    let mut notes = Vec::new();
    let mut policy = config.policy.clone();
    let data = vectors(&mut policy, &manifest, &mut notes)?;
    let (spec, tokenizer_folder) = complete(&policy, &data, teacher_identity(&config)?.as_ref())?;
    manifest.check(path, &spec)?;

    let model = hlrp_torch::rng::seeded(config.seed, || VlaModel::new(&spec.model, Device::Cpu))??;
    let own = model.store().state().into_iter().map(|(name, _)| name).collect();
    let named = names::to_own(path, found, model.predecessor_names(), &own)?;
    let action_head: Vec<String> = {
        let unreachable = model.unreachable();
        model.unused_in(Mode::Latent).into_iter().filter(|pattern| !unreachable.contains(pattern)).collect()
    };
    let fresh = load_converted(path, model.store(), &named, |name| is_named(name, &action_head))?;
    notes.extend(differences(&spec, &manifest, &fresh, config.seed));

    let options = SaveOptions {
        on_existing: OnExisting::Refuse,
        disk: &disk_rules(&config.cluster, &config.logging),
        is_stopped: &|| false,
    };
    let provenance = Provenance { experiment: config.experiment.name.clone(), step: manifest.source_global_step };
    Artifact::save(out, &options, &model, &spec, &provenance, &tokenizer_folder)?;
    console::print(&format!("artifact: {}", out.display()));
    console::print(&format!("to go on in stage 2: training.load_weights_from={}/model.safetensors", out.display()));
    if spec.model.action_dim.is_some() {
        console::print(&format!("to fine-tune in stage 3: lerobot.policy.stage2_artifact={}", out.display()));
    }
    notes.iter().for_each(|note| console::print(&format!("note: {note}")));
    Ok(())
}

/// What the artifact and the configuration say of states and actions. Vectors without statistics are not scaled from then on.
///
/// # Errors
/// Actions are learned, but nothing says how many dimensions they have.
fn vectors(policy: &mut PolicySpec, manifest: &Manifest, notes: &mut Vec<String>) -> Result<DataFacts, Problem> {
    let PolicySpec { model, processor, objective, .. } = policy;
    let arch = model.arch.get();
    // Where every action is padded to one width, the artifact has that width.
    let own_width = manifest.action_dim.filter(|_| arch.max_action_dim().is_none());
    let action_dim = model.action_dim.or(own_width).and_then(|dim| usize::try_from(dim).ok());
    let sees_state = arch.max_state_dim().is_some() && processor.state.is_some();
    let state = processor.state.as_mut().filter(|_| sees_state);
    let facts = DataFacts {
        state: state.and_then(|scaling| vector("observation.state", scaling, None, manifest, notes)),
        action: processor.action.as_mut().and_then(|scaling| vector("action", scaling, action_dim, manifest, notes)),
    };
    if facts.state.is_none() && sees_state {
        notes.push(
            "the artifact does not say what a state is: until the policy is trained here, it sees none".to_owned(),
        );
    }
    if facts.action.is_none() && objective.mode.with_actions() {
        let problem = "null, and the artifact does not say how many dimensions an action has";
        let hint =
            "set it to the dimensions of the robot's actions, or policy.objective.mode=latent to import no actions";
        return Err(Problem::new("policy.model.action_dim", problem, hint));
    }
    Ok(facts)
}

/// The vector `name`: its statistics are those of the configuration, else the artifact's.
fn vector(
    name: &str,
    scaling: &mut Scaling,
    dim: Option<usize>,
    manifest: &Manifest,
    notes: &mut Vec<String>,
) -> Option<FeatureFacts> {
    let given = scaling.statistics.clone().or_else(|| manifest.statistics(name));
    if let Some(statistics) = given.filter(|statistics| !statistics.is_empty()) {
        let needed = scaling.mode.needs().first().and_then(|needed| statistics.get(*needed));
        let dim = needed.or_else(|| statistics.values().next()).map_or(0, Vec::len);
        return Some(FeatureFacts { dim, statistics });
    }
    let dim = scaling.dim.or(dim)?;
    scaling.mode = ScalingMode::Identity;
    notes.push(format!("the artifact has no statistics of {name}, so it is not scaled"));
    Some(FeatureFacts { dim, statistics: BTreeMap::new() })
}

/// What is new, unknown, or differs where the weights are the same.
fn differences(spec: &PolicySpec, manifest: &Manifest, fresh: &[String], seed: u64) -> Vec<String> {
    let mut notes = Vec::new();
    if !fresh.is_empty() {
        notes.push(format!(
            "the artifact has no action head: {} are fresh, drawn from seed {seed}; train with actions before stage 3",
            fresh.join(", ")
        ));
    } else if spec.objective.mode.with_actions() && manifest.source_training_mode == "latent_flow" {
        notes.push("its action head was not trained (mode latent_flow): train with actions before stage 3".to_owned());
    }
    if spec.objective.mode.with_latents() {
        notes.push(
            "the artifact does not say which latent action model labelled for it: policy.teacher is recorded. Its latent head predicts code \
             vectors as they are in the codebook, here they are standardised: train on for some steps"
                .to_owned(),
        );
    } else {
        notes.push(
            "the artifact does not say which latent action model labelled for it: no teacher is recorded".to_owned(),
        );
    }
    if manifest.version == 1 && spec.processor.system_prompt.is_empty() {
        notes.push(
            "the artifact does not say its system prompt, and policy.processor.system_prompt is empty; the predecessor's default in stage 2 \
             is \"You are a robot policy.\""
                .to_owned(),
        );
    }
    if manifest.version > 1 {
        notes.push(
            "it was trained to see the later frame of each pair, here a policy sees the present: train on for some steps"
                .to_owned(),
        );
    }
    notes
}
