//! One folder of recorded numbers.

use anyhow::Context;
use hlrp_golden::lightning::from_lightning_names;
use hlrp_nn::{Store, read_tensors};
use hlrp_schema::{DecoderConfig, LaqModelConfig, LatentAblation};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// What a case folder holds.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) inputs: Tensors,
    pub(crate) outputs: Tensors,
    pub(crate) scalars: Value,
    /// Name of a tensor to how far the reference itself moves.
    pub(crate) noise: BTreeMap<String, f64>,
    dir: PathBuf,
}

impl Case {
    /// Reads the case `name` of the folder `root`, with the case's part of `root/noise.json` when there is one.
    pub(crate) fn open(root: &Path, name: &str) -> anyhow::Result<Self> {
        let dir = root.join(name);
        let optional = |file: &str| if dir.join(file).exists() { tensors(&dir.join(file)) } else { Ok(Tensors::new()) };
        let noise = if root.join("noise.json").exists() { json(&root.join("noise.json"))? } else { Value::Null };
        let noise = noise[name].as_object().map(|entries| {
            entries.iter().filter_map(|(tensor, entry)| Some((tensor.clone(), entry["abs"].as_f64()?))).collect()
        });
        let scalars = dir.join("outputs.json");
        Ok(Self {
            name: name.to_owned(),
            config: json(&dir.join("config.json"))?,
            inputs: optional("inputs.safetensors")?,
            outputs: optional("outputs.safetensors")?,
            scalars: if scalars.exists() { json(&scalars)? } else { Value::Null },
            noise: noise.unwrap_or_default(),
            dir,
        })
    }

    /// An input by name.
    pub(crate) fn input(&self, name: &str) -> anyhow::Result<&Tensor> {
        self.inputs.get(name).with_context(|| format!("inputs.safetensors has no `{name}`"))
    }

    /// The case's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A further file of tensors.
    pub(crate) fn file(&self, name: &str) -> anyhow::Result<Tensors> {
        tensors(&self.dir.join(name))
    }

    /// Loads weights into a whole model, strictly.
    pub(crate) fn load_model(&self, store: &Store) -> anyhow::Result<()> {
        let state = self.file("weights.safetensors")?.into_iter().collect();
        Ok(store.load_strict(&from_lightning_names(state, &store.state())?)?)
    }

    /// The model's configuration from the reference's field names.
    pub(crate) fn model_config(&self) -> anyhow::Result<LaqModelConfig> {
        let model = &self.config["model"];
        let integer =
            |key: &str| model[key].as_i64().with_context(|| format!("config.json has no integer model.{key}"));
        let number = |key: &str| model[key].as_f64().with_context(|| format!("config.json has no number model.{key}"));
        let depth = integer("spatial_depth")?;
        let decoder =
            |key: &str| DecoderConfig { enabled: model[key] == true, depth, loss_weight: 1.0, warmup_steps: 0 };
        Ok(LaqModelConfig {
            name: self.name.clone(),
            image_size: integer("image_size")?,
            patch_size: integer("patch_size")?,
            channels: integer("channels")?,
            dim: integer("dim")?,
            heads: integer("heads")?,
            dim_head: integer("dim_head")?,
            spatial_depth: depth,
            temporal_depth: integer("temporal_depth")?,
            attn_dropout: number("attn_dropout")?,
            ff_dropout: number("ff_dropout")?,
            quant_dim: integer("quant_dim")?,
            codebook_size: integer("codebook_size")?,
            code_seq_len: integer("code_seq_len")?,
            vq_discarding_threshold: number("vq_discarding_threshold")?,
            codebook_replace_schedule: schedule(&model["codebook_replace_schedule"])?,
            usage_decay: 0.9,
            collapse_perplexity: 0.0,
            latent_ablation: match model["latent_ablation"].as_str() {
                Some("permute_batch") => LatentAblation::PermuteBatch,
                _ => LatentAblation::None,
            },
            token_decoder: decoder("use_dino_decoder"),
            pixel_decoder: decoder("use_pixel_decoder"),
            aux_decoder: decoder("use_aux_decoder"),
        })
    }
}

/// A refresh schedule; null stands for the reference's default.
pub(crate) fn schedule(value: &Value) -> anyhow::Result<Vec<[u64; 2]>> {
    if value.is_null() {
        return Ok(vec![[10, 100], [100, 1000], [500, 5000]]);
    }
    Ok(serde_json::from_value(value.clone())?)
}

fn tensors(path: &Path) -> anyhow::Result<Tensors> {
    Ok(read_tensors(path)?.into_iter().collect())
}

fn json(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))
}
