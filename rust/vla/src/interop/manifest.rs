//! What the predecessor's artifact says of itself; `scripts/weights_to_safetensors.py` writes it beside the weights.

use crate::VlaError;
use hlrp_config::foreign::read_text;
use hlrp_schema::PolicySpec;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const CONVERT: &str =
    "convert the artifact with scripts/weights_to_safetensors.py, which writes this file beside the weights";

/// The file.
#[derive(Debug, Deserialize)]
struct Converted {
    schema_version: String,
    manifest: Value,
}

/// Its manifest; what other keys say is in the weights, or has no counterpart here.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    /// Height and width.
    image_size: [i64; 2],
    /// Of the action head.
    pub(super) action_dim: Option<i64>,
    latent_vector_dim: i64,
    flow_steps: i64,
    min_period: f64,
    max_period: f64,
    time_beta_alpha: f64,
    time_beta_beta: f64,
    /// `latent_flow`, `actions`, `multitask`, …
    pub(super) source_training_mode: String,
    /// Optimizer steps done.
    pub(super) source_global_step: u64,
    // From version 2 on.
    action_chunk_size: Option<i64>,
    code_seq_len: Option<i64>,
    tokenizer_max_length: Option<usize>,
    pad_language_to: Option<String>,
    max_state_dim: Option<i64>,
    camera_keys: Option<Vec<String>>,
    /// Version 2: none is an empty one. Version 1 does not say.
    system_prompt: Option<String>,
    normalization_stats: Option<Map<String, Value>>,
    #[serde(skip)]
    pub(super) version: usize,
}

/// Versions of the artifact, from 1 on.
const VERSIONS: [&str; 2] = ["smolvla_shared.v1", "smolvla_shared.v2"];

impl Manifest {
    /// Reads the manifest beside the weights `path`.
    ///
    /// # Errors
    /// A file that is missing or of another form, or an artifact of an unknown version.
    pub(super) fn beside(path: &Path) -> Result<Self, VlaError> {
        let path = path.with_extension("json");
        let refuse = |problem: String| VlaError::file(&path, problem, CONVERT);
        let text = read_text(&path).map_err(|error| refuse(error.to_string()))?;
        let Converted { schema_version, manifest } =
            serde_json::from_str(&text).map_err(|error| refuse(format!("not an artifact's manifest: {error}")))?;
        let Some(at) = VERSIONS.iter().position(|version| *version == schema_version) else {
            let problem = format!("schema_version '{schema_version}', this program reads {}", VERSIONS.join(" and "));
            return Err(VlaError::file(&path, problem, "import an artifact of one of these versions"));
        };
        let manifest: Self = serde_json::from_value(manifest).map_err(|error| refuse(format!("manifest: {error}")))?;
        Ok(Self { version: at + 1, ..manifest })
    }

    /// Statistics of the feature `name` by their names, where the manifest has them.
    pub(super) fn statistics(&self, name: &str) -> Option<BTreeMap<String, Vec<f64>>> {
        let Value::Object(statistics) = self.normalization_stats.as_ref()?.get(name)? else { return None };
        let numbers = |value: &Value| serde_json::from_value::<Vec<f64>>(value.clone()).ok();
        Some(statistics.iter().filter_map(|(name, value)| Some((name.clone(), numbers(value)?))).collect())
    }

    /// Checks that `policy`, which is resolved, is the one that was trained.
    ///
    /// # Errors
    /// The values in which they differ, all of them, and the overrides that change ours.
    pub(super) fn check(&self, path: &Path, policy: &PolicySpec) -> Result<(), VlaError> {
        let differing: Vec<_> =
            self.compared(policy).into_iter().filter(|(_, ours, theirs)| !is_same(ours, theirs)).collect();
        if differing.is_empty() {
            return Ok(());
        }
        let found = differing.iter().map(|(key, ours, theirs)| format!("{key} is {ours}, the artifact's is {theirs}"));
        let problem = format!("the experiment is not that of the artifact: {}", found.collect::<Vec<_>>().join("; "));
        Err(VlaError::file(path, problem, remedy(&differing)))
    }

    /// Keys with our value and theirs, where the artifact says it.
    fn compared(&self, policy: &PolicySpec) -> Vec<(String, Value, Value)> {
        let PolicySpec { model, processor, .. } = policy;
        let (arch, name) = (model.arch.get(), model.arch.name());
        let flow = &model.flow;
        let [height, width] = self.image_size;
        let latent_dim = model.latent.map(|latent| latent.code_seq_len * latent.code_dim);
        let num_slots = model.latent.map(|latent| latent.code_seq_len);
        let prompt = self.system_prompt.clone().or_else(|| (self.version > 1).then(String::new));
        let of_arch = |key: &str| format!("policy.model.arch.{name}.{key}");
        let own = |key: &str| format!("policy.{key}");
        let all = [
            (own("model.resize_imgs_with_padding"), json!(model.resize_imgs_with_padding), json!([width, height])),
            (own("model.flow.num_steps"), json!(flow.num_steps), json!(self.flow_steps)),
            (own("model.flow.min_period"), json!(flow.min_period), json!(self.min_period)),
            (own("model.flow.max_period"), json!(flow.max_period), json!(self.max_period)),
            (own("model.flow.time_beta_alpha"), json!(flow.time_beta_alpha), json!(self.time_beta_alpha)),
            (own("model.flow.time_beta_beta"), json!(flow.time_beta_beta), json!(self.time_beta_beta)),
            (format!("{LATENT} (its dimensions)"), json!(latent_dim), json!(self.latent_vector_dim)),
            (format!("{LATENT}.code_seq_len"), json!(num_slots), json!(self.code_seq_len)),
            (
                format!("the number of {CAMERAS}"),
                json!(model.cameras.len()),
                json!(self.camera_keys.as_ref().map(Vec::len)),
            ),
            (own("processor.system_prompt"), json!(processor.system_prompt), json!(prompt)),
            (
                own("processor.tokenizer_max_length"),
                json!(processor.tokenizer_max_length),
                json!(self.tokenizer_max_length),
            ),
            (own("processor.pad_language_to"), json!(processor.pad_language_to), json!(self.pad_language_to)),
            (of_arch("chunk_size"), json!(arch.chunk_size()), json!(self.action_chunk_size)),
            (of_arch("max_state_dim"), json!(arch.max_state_dim()), json!(self.max_state_dim)),
            (
                of_arch("max_action_dim"),
                json!(arch.max_action_dim()),
                json!(arch.max_action_dim().and(self.action_dim)),
            ),
        ];
        all.into_iter().filter(|(_, _, theirs)| !theirs.is_null()).collect()
    }
}

/// Shape of a latent action.
const LATENT: &str = "policy.model.latent";
/// Roles of the cameras.
const CAMERAS: &str = "policy.model.cameras";

/// What makes our values theirs.
fn remedy(differing: &[(String, Value, Value)]) -> String {
    let is_of = |key: &str, section: &str| key.contains(section);
    let overrides: Vec<String> = differing
        .iter()
        .filter(|(key, ..)| !is_of(key, LATENT) && !is_of(key, CAMERAS))
        .map(|(key, _, theirs)| format!("'{key}={theirs}'"))
        .collect();
    let mut remedies = vec!["choose its experiment".to_owned()];
    if !overrides.is_empty() {
        remedies.push(format!("add {}", overrides.join(" ")));
    }
    if differing.iter().any(|(key, ..)| is_of(key, LATENT)) {
        remedies.push(format!("name its teacher in policy.teacher.checkpoint or, without one, set {LATENT}"));
    }
    if differing.iter().any(|(key, ..)| is_of(key, CAMERAS)) {
        remedies.push(format!("name as many roles in {CAMERAS}"));
    }
    remedies.join("; ")
}

/// Numbers are the same however they are written.
fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours.as_f64(), theirs.as_f64()) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => ours == theirs,
    }
}
