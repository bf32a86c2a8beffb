//! What a recording of predictions needs; the recording itself needs a GPU.

use crate::fixtures::{FixedNoise, expert, expert_section, expert_with, observation, pooled};
use hlrp_config::Hint;
use hlrp_nn::Pass;
use hlrp_schema::policy::{ExpertSpec, LatentHead, Mode, ModelSpec};
use hlrp_torch::count::count;
use hlrp_vla::{ChunkGraphs, VlaError, VlaModel};
use tch::Device;

/// A recording does the same work each time and lets the host read nothing.
#[test]
fn a_prediction_asks_for_the_same_work_each_time_and_lets_nothing_wait() {
    let with_head = |latent_head| expert_with(ExpertSpec { latent_head, ..expert_section() });
    let cases: [(ModelSpec, Mode); 4] = [
        (expert(), Mode::Actions),
        (with_head(LatentHead::CodeCrossEntropy), Mode::Multitask),
        (with_head(LatentHead::JointFlow), Mode::Multitask),
        (pooled(), Mode::Actions),
    ];
    for (spec, mode) in cases {
        let model = VlaModel::new(&spec, Device::Cpu).unwrap();
        let predict = || {
            let mut seen = observation();
            seen.cameras.truncate(spec.cameras.len());
            count(|| {
                tch::no_grad(|| model.sample(&seen, mode, None, &mut FixedNoise::new(3), &Pass::plain(false)))?;
                Ok::<_, VlaError>(())
            })
            .unwrap()
            .1
        };
        let [first, second] = [predict(), predict()];
        assert_eq!(first, second, "{mode:?} of {}", spec.arch.name());
        assert_eq!(first.host_waits, 0, "{mode:?} of {}", spec.arch.name());
    }
}

#[test]
fn the_cpu_records_no_predictions() {
    let model = VlaModel::new(&expert(), Device::Cpu).unwrap();
    let result = ChunkGraphs::default().sample(&model, observation(), Mode::Actions, &mut FixedNoise::new(3));
    let error = result.err().unwrap();
    assert!(error.to_string().contains("cuda_graph: only a GPU records graphs"), "{error}");
    assert!(error.hint().unwrap().contains("move policy and observation to a GPU"));
}
