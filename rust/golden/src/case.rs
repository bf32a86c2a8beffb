//! One folder of recorded numbers.

use anyhow::Context;
use hlrp_config::{compose, find_root};
use hlrp_laq::from_lightning_names;
use hlrp_nn::{Store, read_tensors};
use hlrp_schema::{LaqConfig, LaqModelConfig, PROJECT, Precision};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

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
    device: Device,
    precision: Precision,
}

impl Case {
    /// Reads the case `name` of the folder `root` to `device`, to be computed in `precision`, with the case's part of `root/noise.json` when
    /// there is one.
    pub(crate) fn open(root: &Path, name: &str, device: Device, precision: Precision) -> anyhow::Result<Self> {
        let dir = root.join(name);
        let optional =
            |file: &str| if dir.join(file).exists() { tensors(&dir.join(file), device) } else { Ok(Tensors::new()) };
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
            device,
            precision,
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

    /// Where the case is computed.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// The format of the numbers that are compared.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Runs one forward pass under its own autocast, as the engine does. The backward pass runs outside it; cached casts of weights end with it.
    pub(crate) fn forward_pass<T>(&self, pass: impl FnOnce() -> T) -> anyhow::Result<T> {
        let _autocast = hlrp_train::autocast(self.precision, self.device)?;
        Ok(pass())
    }

    /// A further file of tensors.
    pub(crate) fn file(&self, name: &str) -> anyhow::Result<Tensors> {
        tensors(&self.dir.join(name), self.device)
    }

    /// Loads weights into a whole model, strictly.
    pub(crate) fn load_model(&self, store: &Store) -> anyhow::Result<()> {
        let state = self.file("weights.safetensors")?.into_iter().collect();
        Ok(store.load_strict(&from_lightning_names(state, &store.state())?)?)
    }

    /// The model's configuration from the reference's field names: the tiny model with the case's sizes.
    pub(crate) fn model_config(&self) -> anyhow::Result<LaqModelConfig> {
        let model = &self.config["model"];
        let value = |key: &str| {
            let value = &model[key];
            anyhow::ensure!(value.is_number(), "config.json has no number model.{key}");
            Ok(value.clone())
        };
        let mut overrides = vec![
            "experiment=laq_tiny".to_owned(),
            "model=laq_pixel_tiny".to_owned(),
            format!("model.decoders.token.enabled={}", model["use_dino_decoder"] == true),
            format!("model.decoders.pixel.enabled={}", model["use_pixel_decoder"] == true),
            format!("model.decoders.aux.enabled={}", model["use_aux_decoder"] == true),
            format!("model.latent_ablation={}", model["latent_ablation"].as_str().unwrap_or("none")),
            format!("model.quantizer.nsvq.discarding_threshold={}", value("vq_discarding_threshold")?),
            format!("model.quantizer.nsvq.refresh_schedule={:?}", schedule(&model["codebook_replace_schedule"])?),
            "model.quantizer.nsvq.donors=index".to_owned(),
            "model.quantizer.usage_decay=0.9".to_owned(),
        ];
        for key in ["image_size", "channels", "dim", "heads", "dim_head", "spatial_depth", "temporal_depth"] {
            overrides.push(format!("model.{key}={}", value(key)?));
        }
        for key in ["attn_dropout", "ff_dropout"] {
            overrides.push(format!("model.{key}={}", value(key)?));
        }
        for (key, ours) in
            [("quant_dim", "code_dim"), ("codebook_size", "codebook_size"), ("code_seq_len", "code_seq_len")]
        {
            overrides.push(format!("model.quantizer.{ours}={}", value(key)?));
        }
        let mut patch_size = value("patch_size")?.as_i64().context("patch_size is not an integer")?;
        if model["use_dinov3_encoder"] == true {
            let folder = self.dir.join("dino_hf");
            overrides
                .push(format!("+model.encoder.dinov3={{model: {}, hub_cache: null, sizes: null}}", folder.display()));
            // The tokens are the patches of the backbone, pooled to a grid.
            let image_size = value("image_size")?.as_i64().context("image_size is not an integer")?;
            let own = hlrp_nn::dinov3::read_sizes(&folder)?.patch_size;
            let grid = model["dinov3_pool_to_grid"].as_i64().unwrap_or((image_size as f64 / own as f64).round() as i64);
            patch_size = image_size / grid;
        }
        overrides.push(format!("model.patch_size={patch_size}"));
        if model["flow"]["enabled"] == true {
            let flow = &model["flow"];
            let weights = self.config["raft_weights"].as_str().and_then(|text| text.split(' ').next());
            let weights = self.dir.join(weights.context("config.json has no raft_weights")?);
            overrides.extend([
                "model.decoders.flow.enabled=true".to_owned(),
                "model.decoders.flow.loss=squared".to_owned(),
                "model.decoders.flow.unit=image".to_owned(),
                format!("model.decoders.flow.teacher={}", flow["model"].as_str().unwrap_or_default()),
                format!("model.decoders.flow.teacher_weights={}", weights.display()),
                format!("model.decoders.flow.depth={}", flow["decoder_depth"]),
            ]);
            let keys = [
                ("loss_weight", "loss_weight"),
                ("warmup_steps", "warmup_steps"),
                ("teacher_num_flow_updates", "teacher_num_updates"),
                ("teacher_chunk_size", "teacher_chunk_size"),
            ];
            for (key, ours) in keys {
                overrides.push(format!("model.decoders.flow.{ours}={}", flow[key]));
            }
        }
        for decoder in ["token", "pixel", "aux"] {
            overrides.push(format!("model.decoders.{decoder}.depth={}", value("spatial_depth")?));
        }
        let root = find_root(None, PROJECT.config_dir_variable)?;
        let config: LaqConfig = compose(&PROJECT, &root, "config", &overrides)?.extract()?;
        let mut model = config.model;
        hlrp_laq::Backbone::resolve(&mut model)?;
        Ok(model)
    }
}

/// A refresh schedule; null stands for the reference's default.
pub(crate) fn schedule(value: &Value) -> anyhow::Result<Vec<[u64; 2]>> {
    if value.is_null() {
        return Ok(vec![[10, 100], [100, 1000], [500, 5000]]);
    }
    Ok(serde_json::from_value(value.clone())?)
}

fn tensors(path: &Path, device: Device) -> anyhow::Result<Tensors> {
    Ok(read_tensors(path)?.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect())
}

fn json(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))
}
