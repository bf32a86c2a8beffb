//! A model with everything that an engine must treat right: random draws, a buffer, a parameter without gradient, rewritten rows.

use hlrp_schema::{DeltaUnit, LaqConfig, LaqDescription, LaqModelConfig, PairSpacing, TaskDescription};
use hlrp_track::metrics::MetricSpec;
use hlrp_train::{DeviceBatch, LossOutput, MaskedMean, RowReset, Task, Validation, ValidationContext};
use std::{collections::BTreeMap, path::Path, sync::OnceLock};
use tch::{Device, Kind, Reduction, Tensor};

/// Two linear layers with a code added in between; noise in training.
///
/// | tensor | shape | |
/// |---|---|---|
/// | `first.weight`, `first.bias` | `[16,4]`, `[16]` | |
/// | `second.weight`, `second.bias` | `[2,16]`, `[2]` | |
/// | `codes` | `[6,16]` | row 5 is rewritten in every step that is a multiple of 4 |
/// | `unused` | `[3]` | never gets a gradient |
/// | `num_calls` | `int64 []` | buffer: batches seen in training |
pub struct Regression {
    params: Vec<(String, Tensor)>,
    num_calls: Tensor,
    resets: Vec<RowReset>,
    last_reset: u64,
    noise: f64,
    is_masked: bool,
    val_loss: Option<f64>,
    on_loss: Option<Box<dyn FnMut(u64)>>,
    promised: &'static [&'static str],
    /// Parameters as the last validation saw them.
    pub validated_with: Option<BTreeMap<String, Tensor>>,
}

impl Default for Regression {
    fn default() -> Self {
        Self::with_width(16)
    }
}

impl Regression {
    /// The model with `width` hidden units.
    pub fn with_width(width: i64) -> Self {
        tch::manual_seed(0);
        let param = |name: &str, shape: &[i64]| {
            let tensor = Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.3;
            (name.to_owned(), tensor.set_requires_grad(true))
        };
        Self {
            params: vec![
                param("first.weight", &[width, 4]),
                param("first.bias", &[width]),
                param("second.weight", &[2, width]),
                param("second.bias", &[2]),
                param("codes", &[6, width]),
                param("unused", &[3]),
            ],
            num_calls: Tensor::zeros([], (Kind::Int64, Device::Cpu)),
            resets: Vec::new(),
            last_reset: 0,
            noise: 0.1,
            is_masked: false,
            val_loss: None,
            on_loss: None,
            promised: &["val/loss"],
            validated_with: None,
        }
    }

    /// The same model without noise on its input.
    pub fn without_noise(mut self) -> Self {
        self.noise = 0.0;
        self
    }

    /// The same model, which learns from the samples that are not padding.
    pub fn masked(mut self) -> Self {
        self.is_masked = true;
        self
    }

    /// The same model, whose validation always gives `val_loss`.
    pub fn scoring(mut self, val_loss: f64) -> Self {
        self.val_loss = Some(val_loss);
        self
    }

    /// The same model, which says that its validation gives `metrics`; it gives `val/loss`.
    pub fn promising(mut self, metrics: &'static [&'static str]) -> Self {
        self.promised = metrics;
        self
    }

    /// The same model, which calls `on_loss` with the step at the start of every forward pass.
    pub fn calling(mut self, on_loss: impl FnMut(u64) + 'static) -> Self {
        self.on_loss = Some(Box::new(on_loss));
        self
    }

    /// The parameter called `name`.
    pub fn param(&self, name: &str) -> Tensor {
        self.params.iter().find(|(known, _)| known == name).unwrap().1.shallow_clone()
    }

    fn predict(&self, state_BN: &Tensor) -> Tensor {
        let code = self.param("codes").select(0, 1);
        let hidden = (state_BN.linear(&self.param("first.weight"), Some(&self.param("first.bias"))) + code).tanh();
        hidden.linear(&self.param("second.weight"), Some(&self.param("second.bias")))
    }
}

fn inputs(batch: &DeviceBatch) -> (Tensor, Tensor) {
    let [state, action] = [&batch.state, &batch.action].map(|s| s.as_ref().unwrap().values_BTN.select(1, 0));
    (state, action)
}

/// `bool [B]`.
fn is_supervised(batch: &DeviceBatch) -> Tensor {
    batch.action.as_ref().unwrap().is_pad_BT.select(1, 0).logical_not()
}

impl Task for Regression {
    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.params.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        vec![("num_calls".to_owned(), self.num_calls.shallow_clone())]
    }

    fn loss(&mut self, batch: &DeviceBatch, step: u64) -> anyhow::Result<LossOutput> {
        if let Some(on_loss) = &mut self.on_loss {
            on_loss(step);
        }
        let (state, action) = inputs(batch);
        let noisy = &state + Tensor::randn_like(&state) * self.noise;
        let error_BN = (self.predict(&noisy) - &action).square();
        let (loss, masked) = if self.is_masked {
            let weight_B1 = is_supervised(batch).to_kind(Kind::Float).unsqueeze(1);
            let num_values = (weight_B1.sum(Kind::Float) * 2.0).clamp_min(1.0);
            let mean = (error_BN * weight_B1).sum(Kind::Float) / num_values;
            // The factor is not 1, so that a mean that counts twice or not at all shows.
            let weighted = &mean * 0.5;
            (weighted, vec![MaskedMean { metric: "mse", mean, weight: 0.5 }])
        } else {
            (error_BN.mean(Kind::Float), Vec::new())
        };
        let mse = masked.first().map_or_else(|| loss.shallow_clone(), |masked| masked.mean.shallow_clone());
        let _ = self.num_calls.g_add_scalar_(1);
        if step.is_multiple_of(4) && self.last_reset != step {
            self.last_reset = step;
            tch::no_grad(|| {
                self.param("codes")
                    .select(0, 5)
                    .copy_(&Tensor::randn([self.param("codes").size()[1]], (Kind::Float, Device::Cpu)))
            });
            self.resets.push(RowReset { parameter: "codes".to_owned(), rows: Tensor::from_slice(&[5i64]) });
        }
        Ok(LossOutput { metrics: vec![("mse", mse)], masked, loss })
    }

    fn num_supervised(&self, batch: &DeviceBatch) -> anyhow::Result<Vec<Tensor>> {
        Ok(if self.is_masked { vec![is_supervised(batch).sum(Kind::Int64)] } else { Vec::new() })
    }

    fn take_row_resets(&mut self) -> Vec<RowReset> {
        std::mem::take(&mut self.resets)
    }

    fn validate(
        &mut self,
        batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
        _: &ValidationContext<'_>,
    ) -> anyhow::Result<Validation> {
        let _ = Tensor::randn([5], (Kind::Float, Device::Cpu)); // a validation may draw; training must not notice
        let mut losses = Vec::new();
        for batch in batches {
            let (state, action) = inputs(&batch?);
            losses.push(self.predict(&state).mse_loss(&action, Reduction::Mean).double_value(&[]));
        }
        self.validated_with =
            Some(self.params.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect());
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let metrics = BTreeMap::from([("val/loss".to_owned(), self.val_loss.unwrap_or(mean))]);
        Ok(Validation { metrics, images: Vec::new(), histograms: Vec::new() })
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        self.promised.iter().map(|name| MetricSpec::new(*name, *name)).collect()
    }

    fn description(&self) -> TaskDescription {
        TaskDescription::Laq(description(self.param("first.bias").size()[0]))
    }
}

/// A description that differs with the width of the model.
pub fn description(width: i64) -> LaqDescription {
    static MODEL: OnceLock<LaqModelConfig> = OnceLock::new();
    let model = || {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        let composed =
            hlrp_config::compose(&hlrp_schema::PROJECT, &tree, "config", &["experiment=laq_tiny".to_owned()]).unwrap();
        composed.extract::<LaqConfig>().unwrap().model
    };
    LaqDescription {
        model: LaqModelConfig { dim: width, ..MODEL.get_or_init(model).clone() },
        pair: PairSpacing { unit: DeltaUnit::Frames, image_deltas: vec![0.0, 5.0] },
        preprocess: "none".to_owned(),
    }
}
