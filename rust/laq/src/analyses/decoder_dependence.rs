//! Whether the decoders use the codes: their losses with a pair's own codes, with another pair's, and with zeroed ones.

use super::Scene;
use super::output::Output;
use crate::decoders::DecoderLosses;
use crate::model::LaqModel;
use crate::step::{EvalStep, other_samples};
use hlrp_nn::Pass;
use hlrp_torch::World;
use hlrp_track::table::ResultTable;
use hlrp_train::validation::Sums;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tch::{Device, Tensor, no_grad};

/// Which codes a decoder sees; the last stands for predicting no change.
const KINDS: [&str; 4] = ["own", "other", "zeroed", "no_change"];

/// Losses over all batches, by decoder and kind.
#[derive(Default)]
pub(super) struct Dependence(Mutex<Sums>);

impl Dependence {
    /// Adds a batch of pairs `[B,2,C,H,W]` and its evaluation. A batch of one pair has no other pair and is left out.
    pub(super) fn add(&mut self, model: &LaqModel, frames_BTCHW: &Tensor, step: &EvalStep) {
        let num_samples = frames_BTCHW.size()[0];
        if num_samples < 2 {
            return;
        }
        let losses_of = |tokens_BSD: &Tensor| -> DecoderLosses {
            let predictions = model.decode(frames_BTCHW, &step.encoded, tokens_BSD, &Pass::plain(false));
            model.decoders.losses(&predictions, &step.target)
        };
        let by_kind = no_grad(|| {
            let zeroed_BSD = model.bottleneck.action_tokens(&step.latent.vectors_BSQ.zeros_like());
            [
                losses_of(&step.action_tokens_BSD),
                losses_of(&other_samples(&step.action_tokens_BSD)),
                losses_of(&zeroed_BSD),
                model.decoders.losses(&model.decoders.no_change(&step.target), &step.target),
            ]
        });
        let Ok(sums) = self.0.get_mut() else { return };
        for (kind, losses) in KINDS.iter().zip(&by_kind) {
            for (name, loss) in losses.iter() {
                sums.add(&format!("{name}.{kind}"), loss, num_samples);
            }
        }
    }

    /// Mean losses by decoder and kind.
    fn means(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let sums = self.0.lock().map(|mut sums| std::mem::take(&mut *sums)).unwrap_or_default();
        sums.means(&World::single(), Device::Cpu)
    }
}

pub(super) fn run(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let means = scene.collected.dependence.means()?;
    let mut table =
        ResultTable::new(["decoder", "own codes", "another pair's", "zeroed", "no change", "other / own", "gain"]);
    let (mut found, mut left_out) = (Map::new(), Vec::new());
    for decoder in scene.model.decoders.iter() {
        let loss = |kind: &str| means.get(&format!("{}.{kind}", decoder.name())).copied();
        let [Some(own), Some(other), Some(zeroed), Some(no_change)] = KINDS.map(loss) else {
            left_out.push(decoder.name());
            continue;
        };
        let (ratio, gain) = (other / own.max(f64::MIN_POSITIVE), (other - own) / no_change.max(f64::MIN_POSITIVE));
        let cells = [own, other, zeroed, no_change].map(|loss| format!("{loss:.5}"));
        let cells = cells.into_iter().chain([format!("{ratio:.3}"), format!("{gain:.3}")]);
        table = table.row(std::iter::once(decoder.name().to_owned()).chain(cells));
        let value = json!({
            "own": own, "other": other, "zeroed": zeroed, "no_change": no_change, "other_to_own": ratio, "code_gain": gain,
        });
        found.insert(decoder.name().to_owned(), value);
    }
    output.json("decoder_dependence", &found)?;
    if means.is_empty() {
        output.note("no batch had two pairs");
        return Ok(());
    }
    if !left_out.is_empty() {
        output.note(format!("left out, for a pair of frames lacks the target: {}", left_out.join(", ")));
    }
    if found.contains_key("flow") {
        output.note("the decoder `flow` is compared with the flow that analysis.flow.teacher sees");
    }
    output.note(
        "another pair's codes as good as the own ones (other / own of 1, gain of 0): the decoder ignores the codes",
    );
    output.table(table);
    Ok(())
}
