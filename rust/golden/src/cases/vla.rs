//! What the cases of both policy architectures share.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_nn::{Store, Trace};
use hlrp_schema::policy::{BackboneSizes, BackboneSpec, FlowSpec};
use hlrp_vla::FlowNoise;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use tch::{Device, Kind, Tensor};

/// Recorded noise and times, in order.
#[derive(Default)]
pub(crate) struct RecordedFlow {
    noise: VecDeque<Tensor>,
    time: VecDeque<Tensor>,
}

impl RecordedFlow {
    pub(crate) fn noise(noise: &Tensor) -> Self {
        Self { noise: [noise.shallow_clone()].into(), time: VecDeque::new() }
    }

    pub(crate) fn at(mut self, time_B: &Tensor) -> Self {
        self.time.push_back(time_B.shallow_clone());
        self
    }
}

impl FlowNoise for RecordedFlow {
    fn normal(&mut self, shape: &[i64], _device: Device) -> Tensor {
        let tensor = self.noise.pop_front().expect("the reference drew noise fewer times");
        assert_eq!(tensor.size(), shape, "the reference drew noise of another shape");
        tensor
    }

    fn time(&mut self, num_samples: i64, _flow: &FlowSpec, _device: Device) -> Tensor {
        let tensor = self.time.pop_front().expect("the reference drew times fewer times");
        assert_eq!(tensor.size(), [num_samples], "the reference drew another number of times");
        tensor
    }
}

/// A backbone of these sizes, everything of it trained.
pub(crate) fn backbone(sizes: BackboneSizes) -> BackboneSpec {
    BackboneSpec {
        vlm_model_name: None,
        hub_cache: None,
        load_vlm_weights: false,
        num_vlm_layers: None,
        train_expert_only: false,
        freeze_vision_encoder: false,
        sizes: Some(sizes),
    }
}

/// The integer `key` of a table of `config.json`.
pub(crate) fn integer(table: &Value, key: &str) -> anyhow::Result<i64> {
    table[key].as_i64().with_context(|| format!("config.json has no integer `{key}`"))
}

/// The number `key` of a table of `config.json`.
pub(crate) fn number(table: &Value, key: &str) -> anyhow::Result<f64> {
    table[key].as_f64().with_context(|| format!("config.json has no number `{key}`"))
}

/// The two integers `key` of a table of `config.json`.
pub(crate) fn pair(table: &Value, key: &str) -> anyhow::Result<[i64; 2]> {
    serde_json::from_value(table[key].clone()).with_context(|| format!("config.json has no pair `{key}`"))
}

/// Intermediate results by name; a name that was recorded several times holds them stacked.
pub(crate) fn by_name(trace: Trace) -> BTreeMap<String, Tensor> {
    let mut grouped: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for (name, tensor) in trace.into_records() {
        grouped.entry(name).or_default().push(tensor);
    }
    let stacked = |tensors: Vec<Tensor>| match tensors.as_slice() {
        [only] => only.shallow_clone(),
        several => Tensor::stack(several, 0),
    };
    grouped.into_iter().map(|(name, tensors)| (name, stacked(tensors))).collect()
}

/// A mask of `0` and `1` as truth values.
pub(crate) fn truth(mask: &Tensor) -> Tensor {
    mask.to_kind(Kind::Bool)
}

/// Compares gradients with the recorded ones: in full where they are, by their norm and their absence everywhere.
pub(crate) fn check_gradients(case: &Case, store: &Store, comparison: &mut Comparison) -> anyhow::Result<()> {
    /// A norm below this is rounding noise of a gradient that is zero in exact arithmetic.
    const ZERO_NORM: f64 = 1e-6;
    let norms =
        case.scalars["grad.l2_by_parameter"].as_object().context("outputs.json has no `grad.l2_by_parameter`")?;
    let mut square_sum = 0.0;
    for (name, tensor) in store.state() {
        let gradient = tensor.grad();
        let recorded = norms.get(&name).with_context(|| format!("outputs.json knows no gradient of `{name}`"))?;
        comparison.require(
            &format!("grad.{name}"),
            gradient.defined() == recorded.is_number(),
            "a gradient must exist exactly where the reference has one",
        );
        if !gradient.defined() {
            continue;
        }
        let norm = gradient.to_kind(Kind::Double).norm().double_value(&[]);
        square_sum += norm * norm;
        let expected = recorded.as_f64().unwrap_or(f64::NAN);
        let tolerance = if expected < ZERO_NORM { Tolerance::Zero } else { Tolerance::Gradient };
        comparison.check_number(&format!("l2 of grad.{name}"), norm, expected, tolerance);
        comparison.check(&format!("grad.{name}"), &gradient, Tolerance::Gradient);
    }
    comparison.check("grad.TOTAL_NORM", &Tensor::from(square_sum.sqrt()), Tolerance::Gradient);
    Ok(())
}
