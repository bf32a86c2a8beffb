//! Which model folders load, and how the others are refused.

use crate::tiny::{fresh, hf_config, identical, save, tiny_config};
use hlrp_config::with_hint;
use hlrp_nn::Store;
use hlrp_nn::hub::locate;
use hlrp_nn::smolvlm::{SmolVlm, SmolVlmFolder};
use hlrp_schema::policy::BackboneSizes;
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Kind, Tensor};

type State = Vec<(String, Tensor)>;

/// A tiny backbone saved in a fresh folder, and its weights.
fn saved() -> (tempfile::TempDir, State) {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = fresh(&tiny_config());
    save(folder.path(), &hf_config(), &store.state());
    (folder, store.state())
}

/// What another backbone holds after it was loaded from a folder.
fn loaded(folder: &Path, config: &BackboneSizes) -> State {
    let (store, _) = fresh(config);
    SmolVlmFolder::open(folder).unwrap().load_into(&store.root(), config).unwrap();
    store.state()
}

/// The error of opening a folder and loading it whole.
fn refusal(folder: &Path) -> String {
    let (store, _) = fresh(&tiny_config());
    let before: State = store.state().iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
    let result = SmolVlmFolder::open(folder).and_then(|folder| folder.load_into(&store.root(), &tiny_config()));
    assert!(identical(&store.state(), &before), "a refused folder changed the weights");
    let text = with_hint(&result.unwrap_err());
    assert_eq!(text.matches("hint: ").count(), 1, "one hint: {text}");
    text
}

fn assert_mentions(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn a_folder_loads_exactly() {
    let (folder, state) = saved();
    assert_eq!(SmolVlmFolder::open(folder.path()).unwrap().sizes(), &tiny_config());
    assert!(identical(&loaded(folder.path(), &tiny_config()), &state));
}

#[test]
fn shards_load_like_one_file() {
    let (folder, state) = saved();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let shard_of = |index: usize| format!("model-{:05}-of-00002.safetensors", 1 + index % 2);
    for shard in 0..2 {
        let part: State =
            state.iter().skip(shard).step_by(2).map(|(name, x)| (name.clone(), x.shallow_clone())).collect();
        Tensor::write_safetensors(&part, folder.path().join(shard_of(shard))).unwrap();
    }
    let map: Value =
        state.iter().enumerate().map(|(index, (name, _))| (name.clone(), json!(shard_of(index)))).collect();
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert!(identical(&loaded(folder.path(), &tiny_config()), &state));

    std::fs::remove_file(folder.path().join(shard_of(1))).unwrap();
    assert_mentions(
        &refusal(folder.path()),
        &["model.safetensors.index.json", "shard model-00002-of-00002.safetensors is missing"],
    );

    std::fs::write(&index, json!({ "weight_map": { "lm_head.weight": "../elsewhere.safetensors" } }).to_string())
        .unwrap();
    assert_mentions(&refusal(folder.path()), &["`../elsewhere.safetensors` is not a file of this folder"]);

    std::fs::write(&index, "{}").unwrap();
    assert_mentions(&refusal(folder.path()), &["`weight_map`", "missing"]);
}

#[test]
fn half_precision_becomes_float32() {
    let (folder, state) = saved();
    let halves: State = state.iter().map(|(name, x)| (name.clone(), x.to_kind(Kind::BFloat16))).collect();
    save(folder.path(), &hf_config(), &halves);
    let widened: State = halves.iter().map(|(name, x)| (name.clone(), x.to_kind(Kind::Float))).collect();
    assert!(identical(&loaded(folder.path(), &tiny_config()), &widened));
}

#[test]
fn upper_layers_and_a_tied_head_are_left_out() {
    let (folder, state) = saved();
    let mut config = SmolVlmFolder::open(folder.path()).unwrap().sizes().clone();
    (config.text.num_hidden_layers, config.tie_word_embeddings) = (2, true);
    let kept: State = state
        .into_iter()
        .filter(|(name, _)| !name.contains("text_model.layers.2.") && name != "lm_head.weight")
        .collect();
    assert!(identical(&loaded(folder.path(), &config), &kept));
}

#[test]
fn a_backbone_below_a_prefix_loads_by_the_same_names() {
    let (folder, state) = saved();
    let store = Store::new(Device::Cpu);
    let scope = store.root().child("policy").child("vlm");
    SmolVlm::new(&scope, &tiny_config());
    SmolVlmFolder::open(folder.path()).unwrap().load_into(&scope, &tiny_config()).unwrap();
    assert!(identical(&scope.state(), &state));
    assert!(store.state().iter().all(|(name, _)| name.starts_with("policy.vlm.")));
}

#[test]
fn models_are_found_as_folders_and_in_the_hub_cache() {
    let cache = tempfile::tempdir().unwrap();
    let entry = cache.path().join("models--org--Tiny");
    let snapshot = entry.join("snapshots").join("0123abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(entry.join("refs")).unwrap();
    std::fs::write(entry.join("refs").join("main"), "0123abc\n").unwrap();

    assert_eq!(locate("org/Tiny", cache.path()).unwrap(), snapshot);
    assert_eq!(locate(entry.to_str().unwrap(), cache.path()).unwrap(), snapshot);
    assert_eq!(locate(snapshot.to_str().unwrap(), cache.path()).unwrap(), snapshot);
    let error = with_hint(&locate("org/Other", cache.path()).unwrap_err());
    let command = format!("hlrp data download org/Other --repo-type model --cache-dir {}", cache.path().display());
    assert_mentions(&error, &["org/Other", &format!("hint: run `{command}`")]);
}

#[test]
fn a_folder_without_configuration_or_weights_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert_mentions(&refusal(folder.path()), &["config.json", "hint: give the folder of a SmolVLM"]);

    std::fs::write(folder.path().join("config.json"), hf_config().to_string()).unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    assert_mentions(&refusal(folder.path()), &["no weights", "model.safetensors", "other weight formats are not read"]);

    std::fs::write(folder.path().join("model.safetensors"), "not tensors").unwrap();
    assert_mentions(&refusal(folder.path()), &["model.safetensors", "truncated"]);
}

#[test]
fn weights_of_another_model_are_refused() {
    let (folder, state) = saved();
    let name = "model.text_model.layers.1.mlp.up_proj.weight";
    let with = |change: fn(&Tensor) -> Tensor| -> State {
        state.iter().map(|(n, x)| (n.clone(), if n == name { change(x) } else { x.shallow_clone() })).collect()
    };
    let write = |tensors: &State| save(folder.path(), &hf_config(), tensors);

    let mut missing = with(Tensor::shallow_clone);
    missing.retain(|(n, _)| n != name);
    write(&missing);
    assert_mentions(&refusal(folder.path()), &["1 missing", name, "0 unknown"]);

    let mut extra = with(Tensor::shallow_clone);
    extra.push((
        "model.text_model.layers.3.mlp.up_proj.weight".to_owned(),
        Tensor::zeros([24, 16], (Kind::Float, Device::Cpu)),
    ));
    write(&extra);
    assert_mentions(&refusal(folder.path()), &["0 missing", "1 unknown", "layers.3.mlp"]);

    write(&with(|x| x.narrow(0, 0, 23).contiguous()));
    assert_mentions(&refusal(folder.path()), &[name, "[23, 16]", "[24, 16]"]);

    write(&with(|x| x.to_kind(Kind::Int64)));
    assert_mentions(&refusal(folder.path()), &[name, "Int64", "Float"]);
}

#[test]
fn configurations_of_other_models_are_refused() {
    let (folder, _) = saved();
    let refused = |pointer: &str, value: Value| {
        let mut config = hf_config();
        match config.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                let (section, key) = pointer[1..].split_once('/').unwrap();
                config[section][key] = value;
            }
        }
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        refusal(folder.path())
    };
    assert_mentions(&refused("/model_type", json!("idefics3")), &["`model_type`", "\"idefics3\"", "\"smolvlm\""]);
    assert_mentions(&refused("/text_config/hidden_act", json!("gelu")), &["`text_config.hidden_act`", "\"gelu\""]);
    assert_mentions(&refused("/text_config/mlp_bias", json!(true)), &["`text_config.mlp_bias`"]);
    assert_mentions(&refused("/text_config/hidden_size", Value::Null), &["`text_config.hidden_size` is missing"]);
    assert_mentions(
        &refused("/text_config/hidden_size", json!("wide")),
        &["`text_config.hidden_size`", "not an integer"],
    );
    assert_mentions(
        &refused("/text_config/rope_parameters/rope_type", json!("yarn")),
        &["`rope_parameters.rope_type`", "yarn"],
    );
    assert_mentions(&refused("/vision_config", Value::Null), &["`vision_config` is missing"]);
    assert_mentions(
        &refused("/text_config/num_key_value_heads", json!(3)),
        &["config.json: text.num_key_value_heads", "3 does not divide num_attention_heads = 4"],
    );
    assert_mentions(
        &refused("/vision_config/patch_size", json!(0)),
        &["config.json: vision.patch_size", "0 is below 1"],
    );
}

#[test]
fn sizes_that_published_configurations_leave_out_are_those_of_transformers() {
    let (folder, _) = saved();
    let mut config = hf_config();
    for key in ["intermediate_size", "num_hidden_layers", "layer_norm_eps", "hidden_act"] {
        config["vision_config"].as_object_mut().unwrap().remove(key);
    }
    config["text_config"].as_object_mut().unwrap().remove("rope_parameters");
    config["text_config"]["rope_theta"] = json!(100_000);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let read = SmolVlmFolder::open(folder.path()).unwrap();
    let vision = &read.sizes().vision;
    assert_eq!((vision.intermediate_size, vision.num_hidden_layers, vision.layer_norm_eps), (3072, 12, 1e-6));
    assert_eq!(read.sizes().text, tiny_config().text);
}
