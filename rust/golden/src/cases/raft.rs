//! Optical flow by RAFT.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_laq::unit_frames;
use hlrp_nn::raft::{Raft, RaftSize};
use hlrp_nn::{Pass, Store, Trace};
use tch::{Kind, Tensor, no_grad};

/// Channels of an upsampling mask between recorded ones.
const MASK_STRIDE: i64 = 9;

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let size = if case.name.starts_with("raft_large") { RaftSize::Large } else { RaftSize::Small };
    let store = Store::new(case.device());
    let model = Raft::new(&store.root(), size);
    let as_float = |x: Tensor| if x.is_floating_point() { x.to_kind(Kind::Float) } else { x };
    let weights: Vec<_> =
        case.file("weights.safetensors")?.into_iter().map(|(name, tensor)| (name, as_float(tensor))).collect();
    store.load_strict(&weights)?;

    let integer = |key: &str| case.config[key].as_i64().with_context(|| format!("config.json has no integer {key}"));
    let (num_updates, stride) = (integer("num_flow_updates")?, integer("channel_stride")?);
    let image = |name: &str| anyhow::Ok(unit_frames(case.input(name)?) * 2.0 - 1.0);
    let (first, second) = (image("image1_u8")?, image("image2_u8")?);
    // Wide maps are recorded by every n-th channel; the mask of a convex upsampling by every ninth.
    let strided = |name: &str, x: &Tensor| {
        let stride = if name.starts_with("mask_predictor") && stride > 1 { MASK_STRIDE } else { stride };
        x.slice(1, 0, x.size()[1], stride)
    };
    let last = num_updates - 1;
    for updates in 1..=num_updates {
        let trace = Trace::default();
        let watched = Pass { train: false, trace: Some(&trace) };
        let flow = case.forward_pass(|| no_grad(|| model.forward(&first, &second, updates, &watched)))?;
        comparison.check(&format!("flow.{}", updates - 1), &flow, Tolerance::Forward);
        for (name, tensor) in trace.into_records() {
            if updates < num_updates && name != "mask_predictor.0" {
                continue;
            }
            let recorded = if name.starts_with("delta_flow") { tensor } else { strided(&name, &tensor) };
            let of_last = name.strip_suffix(&format!(".{last}")).map(|part| format!("{part}.last"));
            comparison.check(of_last.as_deref().unwrap_or(&name), &recorded, Tolerance::Forward);
            comparison.check(&name, &recorded, Tolerance::Forward);
        }
    }
    Ok(())
}
