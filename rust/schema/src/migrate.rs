//! Keys that older versions had under other names: one table for each stage. It brings trees of older versions up to date, and is the
//! source of the suggestion for a user who writes an old key.

use crate::stage::Stage;
use hlrp_config::Node;
use serde_json::{Map, Value, json};

/// One difference between an older version's tree of a stage and this version's.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// The value or section at the first dotted path is now at the second.
    Moved(&'static str, &'static str),
    /// The key no longer exists.
    Removed(&'static str),
    /// A key that older versions did not have, with the value (JSON) that they implied.
    Added(&'static str, &'static str),
    /// A change that the others cannot express; it gets the whole tree.
    Custom(fn(&mut Value)),
}

/// The changes of a stage's tree in the order in which they apply: keys of a section before the section.
fn changes(stage: Stage) -> &'static [Change] {
    match stage {
        Stage::Laq => LAQ,
        Stage::Vla => VLA,
        Stage::LerobotTrain => LEROBOT_TRAIN,
        Stage::LaqAnalysis | Stage::LerobotRollout | Stage::Pipeline => &[],
    }
}

/// Keys of every stage that older versions did not have, with the values (JSON) that they implied. `*` is every name in its section.
const ADDED: &[(&str, &str)] = &[
    ("logging.sinks.console", "true"),
    ("logging.sinks.png", "true"),
    ("logging.sinks.tensorboard", "false"),
    ("data.sources.*.repo_id", "null"),
    ("data.sources.*.revision", "null"),
    ("data.sources.*.streaming", "false"),
    ("data.sources.*.tolerance_s", "null"),
    ("data.sources.*.rlds", "null"),
    ("data.sources.*.scenes", "null"),
    ("data.sources.*.labelled_episodes", "null"),
    ("data.sources.*.weight", "null"),
    ("data.sources.*.span", "null"),
    ("data.sources.*.exclude_episodes", "null"),
    ("data.sources.*.val_episodes", "null"),
    ("data.sources.*.filter", "null"),
    ("cluster.slurm.clusters", "null"),
    ("cluster.container.runtime", "\"pyxis\""),
    ("cluster.container.program", "\"hlrp\""),
    ("logging.min_free_files", "0"),
    ("cluster.quota_command", "null"),
    ("cluster.images.dir", "null"),
    ("cluster.remote.host", "null"),
    ("cluster.remote.repository", "null"),
    ("num_processes", "1"),
    (
        "submit",
        r#"{"dry_run": false, "print": "text", "race": null, "array": false, "array_limit": null, "preflight": false,
            "save_before_limit": "00:10:00", "max_restarts": 20, "seconds_per_step": null, "pre_commands": [],
            "extra_mounts": []}"#,
    ),
];

/// Keys of a loader of samples that older versions did not have, with the values (JSON) that they implied; stage 3 has no loader.
const ADDED_TO_LOADER: [(&str, &str); 6] = [
    ("data.loader.labelled_fraction", "null"),
    ("data.loader.uniform_over", "\"anchors\""),
    ("data.loader.mixing_block", "256"),
    ("data.loader.stream_cache_mb", "256"),
    ("data.resize", "\"host\""),
    ("data.filter", "null"),
];

/// Whether what a run replaces is kept, and the key that decides it in the tree of an older version: a run of a cluster keeps it.
const KEEP_SUPERSEDED: [&str; 2] = ["cluster.keep_superseded", "cluster.slurm.enabled"];

/// Keys of every training that older versions did not have, with the values (JSON) that they implied.
const ADDED_TO_TRAININGS: [(&str, &str); 5] = [
    ("training.scheduler.lr_base_size", "null"),
    ("training.scheduler.lr_base_scale", "\"sqrt\""),
    ("training.distributed.timeout_s", "600.0"),
    ("training.cuda_graph", "false"),
    (
        "training.augmentation",
        r#"{"pair": "same", "shift": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}"#,
    ),
];

/// Keys of a model of stage 1 that older versions did not have, with the values (JSON) that they implied.
const ADDED_TO_LAQ: [(&str, &str); 19] = [
    ("model.encoder", "{}"),
    ("model.decoder_network", "\"transformer\""),
    ("model.quantizer.normalization", "\"none\""),
    ("model.quantizer.normalization_decay", "0.95"),
    ("model.quantizer.unquantized_steps", "0"),
    ("model.quantizer.kmeans_start", "false"),
    ("model.quantizer.grid_width", "null"),
    ("model.quantizer.slot_embedding", "false"),
    ("model.decoders.token.target", "\"projected\""),
    ("model.decoders.*.motion_weight", "0.0"),
    ("model.decoders.*.motion_threshold", "null"),
    ("model.decoders.*.from_latent_only", "false"),
    ("model.decoders.aux.detached", "true"),
    ("model.decoders.*.detached", "false"),
    ("model.cameras", r#"["primary"]"#),
    ("model.view_dropout", "0.0"),
    ("model.triplets.additivity_weight", "0.0"),
    ("model.triplets.reversal_weight", "0.0"),
    ("model.label_head", r#"{"weight": 0.0, "hidden_dims": [], "every_n_steps": 2}"#),
];

/// Keys of the expert architecture that older versions did not have, with the values (JSON) that they implied.
const ADDED_TO_EXPERT: [(&str, &str); 2] =
    [("policy.model.arch.expert.latent_head", "\"vector_flow\""), ("policy.model.arch.expert.latent_dropout", "0.0")];

/// Keys of stage 2 that older versions did not have, with the values (JSON) that they implied.
const ADDED_TO_VLA: [(&str, &str); 2] =
    [("policy.teacher.label_prefix", "null"), ("policy.teacher.label_vectors", "null")];

/// Keys of an analysis of stage 1 that older versions did not have, with the values (JSON) that they implied.
const ADDED_TO_ANALYSIS: [(&str, &str); 2] = [("analysis.num_probe_pairs", "1024"), ("analysis.run.probes", "false")];

/// The teacher that had no name in an analysis of an older version.
const FLOW_TEACHER: &str = "analysis.flow.teacher";

/// Keys of a pipeline that older versions did not have, with the values (JSON) that they implied.
const ADDED_TO_PIPELINE: [(&str, &str); 1] = [("pipeline.study", "null")];

/// Keys of the validation of stage 1 that older versions did not have, with the values (JSON) that they implied.
const ADDED_TO_LAQ_VALIDATION: [(&str, &str); 6] = [
    ("validation.probes.enabled", "false"),
    ("validation.probes.num_pairs", "256"),
    ("validation.fail_on_error", "false"),
    ("validation.buckets", "{}"),
    (
        "validation.strategies",
        r#"{"reconstructions": {"enabled": true, "every_n_validations": 1, "min_samples": 1, "buckets": [],
                "reconstructions": {"num_random_samples": 0}},
            "code_histogram": {"enabled": true, "every_n_validations": 1, "min_samples": 1, "buckets": [],
                "code_histogram": {}}}"#,
    ),
    ("validation.strategies.*.reconstructions.num_train_samples", "0"),
];

/// Stage 1.
const LAQ: &[Change] = &[
    Change::Moved("model.quant_dim", "model.quantizer.code_dim"),
    Change::Moved("model.codebook_size", "model.quantizer.codebook_size"),
    Change::Moved("model.code_seq_len", "model.quantizer.code_seq_len"),
    Change::Moved("model.usage_decay", "model.quantizer.usage_decay"),
    Change::Moved("model.collapse_perplexity", "model.quantizer.collapse_perplexity"),
    Change::Moved("model.vq_discarding_threshold", "model.quantizer.nsvq.discarding_threshold"),
    Change::Moved("model.codebook_replace_schedule", "model.quantizer.nsvq.refresh_schedule"),
    Change::Moved("model.token_decoder", "model.decoders.token"),
    Change::Moved("model.pixel_decoder", "model.decoders.pixel"),
    Change::Moved("model.aux_decoder", "model.decoders.aux"),
];

/// Stage 2.
const VLA: &[Change] = &[
    Change::Custom(|tree| {
        // The first version had every architecture's keys in every tree.
        if let Some(arch) = remove(tree, "model.arch") {
            if arch == "pooled" {
                for key in ["model.expert", "model.state", "model.action.chunk_size", "model.action.max_dim"] {
                    remove(tree, key);
                }
                remove(tree, "model.freeze.state_proj");
                remove(tree, "model.init_from");
                insert(tree, "policy.model.arch.pooled", Value::Object(Map::new()));
            } else {
                insert(tree, "policy.model.arch.expert.image_special_tokens", Value::Null);
            }
        }
        if let Some(Value::Array(mut sides)) = remove(tree, "model.image_size") {
            sides.reverse();
            insert(tree, "policy.model.resize_imgs_with_padding", Value::Array(sides));
        }
        if let Some(pads) = remove(tree, "model.prompt.pad_to_max_length") {
            let choice = if pads == true { "max_length" } else { "longest" };
            insert(tree, "policy.processor.pad_language_to", choice.into());
        }
        if let Some(is_frozen) = remove(tree, "model.freeze.state_proj") {
            insert(tree, "policy.model.arch.expert.train_state_proj", (is_frozen != true).into());
        }
    }),
    Change::Removed("model.name"),
    Change::Moved("model.arch", "policy.model.arch"),
    Change::Moved("model.image_size", "policy.model.resize_imgs_with_padding"),
    Change::Moved("model.prompt.pad_to_max_length", "policy.processor.pad_language_to"),
    Change::Moved("model.freeze.state_proj", "policy.model.arch.expert.train_state_proj"),
    Change::Moved("model.freeze.backbone", "policy.model.backbone.train_expert_only"),
    Change::Moved("model.freeze.vision_encoder", "policy.model.backbone.freeze_vision_encoder"),
    Change::Moved("model.mode", "policy.objective.mode"),
    Change::Moved("model.latent_loss_weight", "policy.objective.latent_loss_weight"),
    Change::Moved("model.action_loss_weight", "policy.objective.action_loss_weight"),
    Change::Moved("model.cameras", "policy.model.cameras"),
    Change::Moved("model.num_empty_cameras", "policy.model.empty_cameras"),
    Change::Moved("model.frame_size", "policy.processor.frame_size"),
    Change::Moved("model.backbone.path", "policy.model.backbone.vlm_model_name"),
    Change::Moved("model.backbone.num_text_layers", "policy.model.backbone.num_vlm_layers"),
    Change::Moved("model.backbone", "policy.model.backbone"),
    Change::Moved("model.init_from", "policy.model.arch.expert.smolvla_checkpoint"),
    Change::Moved("model.tokenizer", "policy.processor.tokenizer"),
    Change::Moved("model.prompt.max_length", "policy.processor.tokenizer_max_length"),
    Change::Moved("model.prompt", "policy.processor"),
    Change::Moved("model.normalization.state", "policy.processor.state.mode"),
    Change::Moved("model.normalization.action", "policy.processor.action.mode"),
    Change::Moved("model.expert.num_layers", "policy.model.arch.expert.num_expert_layers"),
    Change::Moved("model.expert.width_multiplier", "policy.model.arch.expert.expert_width_multiplier"),
    Change::Moved("model.expert.image_special_tokens", "policy.model.arch.expert.add_image_special_tokens"),
    Change::Moved("model.expert", "policy.model.arch.expert"),
    Change::Moved("model.state.max_dim", "policy.model.arch.expert.max_state_dim"),
    Change::Moved("model.action.chunk_size", "policy.model.arch.expert.chunk_size"),
    Change::Moved("model.action.max_dim", "policy.model.arch.expert.max_action_dim"),
    Change::Moved("model.action.dim", "policy.model.action_dim"),
    Change::Moved("model.flow", "policy.model.flow"),
    Change::Moved("model.laq", "policy.teacher"),
    Change::Added("policy.model.latent", "null"),
    Change::Added("policy.model.backbone.load_vlm_weights", "true"),
    Change::Added("policy.processor.image_preparation", "pad-resize-bilinear-left-top/1"),
    Change::Added("policy.processor.padding_side", "right"),
    Change::Added("policy.processor.truncation_side", "left"),
    Change::Added("policy.processor.state.dim", "null"),
    Change::Added("policy.processor.state.statistics", "null"),
    Change::Added("policy.processor.action.dim", "null"),
    Change::Added("policy.processor.action.statistics", "null"),
    Change::Added("policy.teacher.sha256", "null"),
    Change::Added("policy.teacher.image_size", "null"),
    Change::Added("policy.teacher.pair", "null"),
];

/// Stage 3.
const LEROBOT_TRAIN: &[Change] = &[];

/// Brings the tree of a stage up to date if it has a key that this version has moved or removed. Returns what it changed, one line per key.
pub fn migrate(stage: Stage, tree: &mut Value) -> Vec<String> {
    migrate_with(changes(stage), tree)
}

fn migrate_with(changes: &[Change], tree: &mut Value) -> Vec<String> {
    let is_old = |change: &Change| match change {
        Change::Moved(old, _) | Change::Removed(old) => get(tree, old).is_some(),
        Change::Added(..) | Change::Custom(_) => false,
    };
    if !changes.iter().any(is_old) {
        return Vec::new();
    }
    let mut done = Vec::new();
    for change in changes {
        match change {
            Change::Moved(old, new) => {
                if let Some(value) = remove(tree, old) {
                    done.push(format!("renamed {old} to {new}"));
                    insert(tree, new, value);
                }
            }
            Change::Removed(old) => {
                if remove(tree, old).is_some() {
                    done.push(format!("removed {old}"));
                }
            }
            Change::Added(key, json) => {
                if get(tree, key).is_none() {
                    done.push(added(key, json));
                    let value = serde_json::from_str(json).unwrap_or_else(|_| Value::String((*json).to_owned()));
                    insert(tree, key, value);
                }
            }
            Change::Custom(change) => change(tree),
        }
    }
    done
}

/// [`migrate`] for a whole tree, which names its stage itself.
pub(crate) fn migrate_tree(tree: &mut Value) -> Vec<String> {
    let name = get(tree, crate::stage::STAGE_KEY).and_then(Value::as_str).unwrap_or_default();
    let Some(stage) = Stage::from_name(name) else { return Vec::new() };
    let mut done = migrate(stage, tree);
    done.extend(add_missing(ADDED, tree));
    if get(tree, "data.loader").is_some() {
        done.extend(add_missing(&ADDED_TO_LOADER, tree));
    }
    let [key, decides] = KEEP_SUPERSEDED;
    if let (None, Some(value)) = (get(tree, key), get(tree, decides).cloned()) {
        done.push(added(key, &value.to_string()));
        insert(tree, key, value);
    }
    if matches!(stage, Stage::Laq | Stage::Vla) {
        done.extend(add_missing(&ADDED_TO_TRAININGS, tree));
    }
    done.extend(add_to_expert(tree));
    if stage == Stage::LaqAnalysis {
        done.extend(add_missing(&ADDED_TO_ANALYSIS, tree));
        if get(tree, FLOW_TEACHER).is_some_and(Value::is_null) {
            insert(tree, FLOW_TEACHER, "lucas_kanade".into());
            done.push(format!("set {FLOW_TEACHER}=lucas_kanade, which null was"));
        }
    }
    if stage == Stage::Pipeline {
        done.extend(add_missing(&ADDED_TO_PIPELINE, tree));
    }
    if stage == Stage::Vla {
        done.extend(add_missing(&ADDED_TO_VLA, tree));
    }
    if stage == Stage::Laq {
        done.extend(add_missing(&ADDED_TO_LAQ, tree));
        done.extend(add_missing(&ADDED_TO_LAQ_VALIDATION, tree));
    }
    done
}

/// [`migrate`] for the description of a policy (`model`, `teacher`, …) in an artifact of version 2 or a checkpoint up to version 4. Its teacher had
/// codes, as many as it says itself.
pub fn migrate_policy(policy: &mut Value) {
    let codebook_size = get(policy, "teacher.codebook_size").cloned().unwrap_or_default();
    if let Some(latent) = policy.pointer_mut("/model/latent").and_then(Value::as_object_mut) {
        latent.entry("codebook_size").or_insert(codebook_size);
    }
    let mut tree = json!({ "policy": policy.take() });
    add_to_expert(&mut tree);
    *policy = tree["policy"].take();
}

/// Adds the keys that an older version's tree lacks, if its policy has the expert architecture.
fn add_to_expert(tree: &mut Value) -> Vec<String> {
    if get(tree, "policy.model.arch.expert").is_none() {
        return Vec::new();
    }
    add_missing(&ADDED_TO_EXPERT, tree)
}

/// [`migrate`] for the section `model` of stage 1 in a checkpoint of an older version.
pub(crate) fn migrate_laq_model(model: &mut Value) {
    let mut tree = json!({ "model": model.take() });
    migrate(Stage::Laq, &mut tree);
    add_missing(&ADDED_TO_LAQ, &mut tree);
    *model = tree["model"].take();
}

/// Adds keys that an older version's tree lacks. Returns one line for each.
fn add_missing(keys: &[(&str, &str)], tree: &mut Value) -> Vec<String> {
    let mut done = Vec::new();
    for (pattern, json) in keys {
        for key in expand(tree, pattern) {
            if get(tree, &key).is_none() {
                insert(tree, &key, serde_json::from_str(json).unwrap_or_default());
                done.push(added(&key, json));
            }
        }
    }
    done
}

fn added(key: &str, json: &str) -> String {
    // The values of a whole section are those of config/.
    if json.starts_with('{') { format!("added the section {key}") } else { format!("added {key}={json}") }
}

/// The keys of a tree that a pattern matches: `*` is every name in its section below which the rest of the path up to the key exists.
fn expand(tree: &Value, pattern: &str) -> Vec<String> {
    let Some((section, rest)) = pattern.split_once(".*.") else { return vec![pattern.to_owned()] };
    let names = get(tree, section).and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let keys = names.map(|name| format!("{section}.{name}.{rest}"));
    keys.filter(|key| key.rsplit_once('.').is_some_and(|(parent, _)| get(tree, parent).is_some())).collect()
}

/// What an unknown key of a tree is called now, if an older version knew it.
pub(crate) fn renamed(tree: &Node, key: &str) -> Option<String> {
    let stage = tree.get(crate::stage::STAGE_KEY).and_then(|node| Stage::from_name(node.as_str()?))?;
    renamed_with(changes(stage), key)
}

fn renamed_with(changes: &[Change], key: &str) -> Option<String> {
    changes.iter().find_map(|change| {
        let Change::Moved(old, new) = change else { return None };
        let rest = key.strip_prefix(old)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{new}{rest}"))
    })
}

fn get<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(tree, |value, key| value.get(key))
}

/// Removes a value, and the sections that are empty without it.
fn remove(tree: &mut Value, path: &str) -> Option<Value> {
    let map = tree.as_object_mut()?;
    match path.split_once('.') {
        None => map.remove(path),
        Some((section, rest)) => {
            let inner = map.get_mut(section)?;
            let removed = remove(inner, rest)?;
            if inner.as_object().is_some_and(Map::is_empty) {
                map.remove(section);
            }
            Some(removed)
        }
    }
}

/// Sets a value; sections on the way are made where they are missing. A section is merged into one that exists.
fn insert(tree: &mut Value, path: &str, value: Value) {
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    let Some(map) = tree.as_object_mut() else { return };
    match (path.split_once('.'), value) {
        (Some((section, rest)), value) => insert(map.entry(section).or_insert(Value::Null), rest, value),
        (None, Value::Object(new)) if map.get(path).is_some_and(Value::is_object) => {
            new.into_iter().for_each(|(key, value)| insert(&mut map[path], &key, value));
        }
        (None, value) => drop(map.insert(path.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGES: &[Change] = &[
        Change::Moved("model.old.kind", "model.new.name"),
        Change::Moved("model.old", "model.new.rest"),
        Change::Removed("model.gone"),
        Change::Added("model.new.is_known", "true"),
        Change::Custom(|tree| insert(tree, "seen", json!(1))),
    ];

    #[test]
    fn a_tree_of_an_older_version_is_brought_up_to_date_once() {
        let mut tree = json!({"model": {"old": {"kind": "a", "dim": 3}, "gone": null, "kept": 1}});
        let changed = [
            "renamed model.old.kind to model.new.name",
            "renamed model.old to model.new.rest",
            "removed model.gone",
            "added model.new.is_known=true",
        ];
        assert_eq!(migrate_with(CHANGES, &mut tree), changed);
        let wanted =
            json!({"model": {"new": {"name": "a", "rest": {"dim": 3}, "is_known": true}, "kept": 1}, "seen": 1});
        assert_eq!(tree, wanted);
        assert!(migrate_with(CHANGES, &mut tree).is_empty(), "it is of this version now");
        assert_eq!(tree, wanted);
    }

    #[test]
    fn a_stage_without_a_loader_gets_no_keys_of_one() {
        for name in ["lerobot_train", "lerobot_rollout", "pipeline"] {
            let mut tree = json!({"experiment": {"stage": name}});
            migrate_tree(&mut tree);
            assert_eq!(tree.get("data"), None, "{name}");
        }
        let mut tree = json!({"experiment": {"stage": "vla"}, "data": {"loader": {"batch_size": 4}}});
        migrate_tree(&mut tree);
        let loader = json!({"batch_size": 4, "labelled_fraction": null, "uniform_over": "anchors", "mixing_block": 256, "stream_cache_mb": 256});
        assert_eq!(tree["data"]["loader"], loader);
        assert_eq!(tree["data"]["resize"], "host");
    }

    #[test]
    fn an_old_key_has_a_new_name() {
        assert_eq!(renamed_with(CHANGES, "model.old.kind").as_deref(), Some("model.new.name"));
        assert_eq!(renamed_with(CHANGES, "model.old.dim").as_deref(), Some("model.new.rest.dim"));
        assert_eq!(renamed_with(CHANGES, "model.older"), None);
    }

    #[test]
    fn a_pattern_matches_every_name_of_a_section() {
        let tree = json!({"data": {"sources": {"a": {}, "b": {}}}});
        let keys = ["data.sources.a.tolerance_s", "data.sources.b.tolerance_s"];
        assert_eq!(expand(&tree, "data.sources.*.tolerance_s"), keys);
        assert_eq!(expand(&tree, "logging.sinks.png"), ["logging.sinks.png"]);
        let tree = json!({"strategies": {"a": {"kind": {}}, "b": {}}});
        assert_eq!(expand(&tree, "strategies.*.kind.num"), ["strategies.a.kind.num"], "b is of another kind");
        assert!(expand(&json!({}), "data.sources.*.tolerance_s").is_empty());
    }

    #[test]
    fn no_table_moves_a_key_to_one_that_it_moves_too() {
        for stage in Stage::ALL {
            for change in changes(stage) {
                let Change::Moved(_, new) = change else { continue };
                let again = renamed_with(changes(stage), new);
                assert_eq!(again, None, "a second migration would change {new}");
            }
        }
    }
}
