//! What a recording of predictions needs; the recording itself needs a GPU.

use crate::fixtures::{FixedNoise, distance, expert, expert_section, expert_with, observation, pooled, targets};
use hlrp_config::Hint;
use hlrp_nn::{Pass, Trace};
use hlrp_schema::policy::{ExpertSpec, FlowSpec, LatentHead, Mode, ModelSpec, ObjectiveSpec};
use hlrp_torch::count::count;
use hlrp_vla::{ChunkGraphs, Chunking, FlowNoise, Guidance, HeadKind, PrefixSchedule, TorchNoise, VlaError, VlaModel};
use tch::{Device, Kind, Tensor};

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
        let predict = |guidance: Option<&Guidance>| {
            let mut seen = observation();
            seen.cameras.truncate(spec.cameras.len());
            count(|| {
                tch::no_grad(|| model.sample(&seen, mode, guidance, &mut FixedNoise::new(3), &Pass::plain(false)))?;
                Ok::<_, VlaError>(())
            })
            .unwrap()
            .1
        };
        let num_samples = observation().language.ids_BL.size()[0];
        let chunk = model.noise_shapes(mode, num_samples).into_iter().find_map(|(kind, shape)| match shape[..] {
            [samples, steps, dim] if kind == HeadKind::Action => Some([samples, steps, dim]),
            _ => None,
        });
        let after = |inference_delay| {
            let prefix_attention_schedule = PrefixSchedule::Linear;
            let chunking =
                Chunking { inference_delay, execution_horizon: 3, prefix_attention_schedule, max_guidance_weight: 5.0 };
            let left_over = Tensor::ones([3, 2], (Kind::Float, Device::Cpu));
            chunk.map(|chunk| Guidance::new(&chunking, &left_over, chunk, Device::Cpu).unwrap())
        };
        assert_eq!(chunk.is_some(), spec.arch.name() == "expert", "the expert predicts chunks");
        // What is left over, and how much of it counts, are inputs of a recording.
        let guided = [after(0), after(2)];
        for guidance in [[None, None], [guided[0].as_ref(), guided[1].as_ref()]] {
            let [first, second] = guidance.map(predict);
            assert_eq!(first, second, "{mode:?} of {}", spec.arch.name());
            assert_eq!(first.host_waits, 0, "{mode:?} of {}", spec.arch.name());
        }
    }
}

#[test]
fn the_cpu_records_no_predictions() {
    let model = VlaModel::new(&expert(), Device::Cpu).unwrap();
    let result = ChunkGraphs::default().sample(&model, observation(), Mode::Actions, None, &mut FixedNoise::new(3));
    let error = result.err().unwrap();
    assert!(error.to_string().contains("cuda_graph: only a GPU records graphs"), "{error}");
    assert!(error.hint().unwrap().contains("move policy and observation to a GPU"));
}

/// On a GPU each of them would let it run dry.
#[test]
fn a_training_step_reads_no_value_on_the_host() {
    for (spec, num_cameras) in [(expert(), 2), (pooled(), 1)] {
        let model = VlaModel::new(&spec, Device::Cpu).unwrap();
        let mut seen = observation();
        seen.cameras.truncate(num_cameras);
        let mut wanted = targets();
        if let (Some(action), 1) = (&mut wanted.action, num_cameras) {
            action.chunk_BTA = action.chunk_BTA.narrow(1, 0, 1);
            action.is_pad_BT = action.is_pad_BT.narrow(1, 0, 1);
        }
        let objective = ObjectiveSpec { mode: Mode::Multitask, latent_loss_weight: 0.1, action_loss_weight: 1.0 };
        let ((), counts) = count(|| {
            model.loss(&seen, &wanted, &objective, &mut TorchNoise, &Pass::plain(true))?.total.backward();
            Ok::<_, VlaError>(())
        })
        .unwrap();
        assert_eq!(counts.host_waits, 0, "{}", spec.arch.name());
    }
}

/// Noise as [`FixedNoise`] has it, at the beginning of the way to the target.
struct AtTheStart(FixedNoise);

impl FlowNoise for AtTheStart {
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor {
        self.0.normal(shape, device)
    }

    fn time(&mut self, num_samples: i64, _: &FlowSpec, device: Device) -> Tensor {
        Tensor::ones([num_samples], (Kind::Float, device))
    }
}

/// A sampler of one step goes from the noise along the velocity there. The loss computes the same velocity with keys and values that are put
/// together for the call; the sampler overwrites the end of a static cache.
#[test]
fn the_static_cache_of_the_sampler_changes_nothing() {
    for every in [1, 2] {
        let section = ExpertSpec { self_attn_every_n_layers: every, ..expert_section() };
        let spec = ModelSpec { flow: FlowSpec { num_steps: 1, ..expert().flow }, ..expert_with(section) };
        let model = VlaModel::new(&spec, Device::Cpu).unwrap();
        let (seen, trace) = (observation(), Trace::default());
        let objective = ObjectiveSpec { mode: Mode::Actions, latent_loss_weight: 0.0, action_loss_weight: 1.0 };
        let pass = Pass { train: false, trace: Some(&trace) };
        tch::no_grad(|| model.loss(&seen, &targets(), &objective, &mut AtTheStart(FixedNoise::new(3)), &pass)).unwrap();
        let records = trace.into_records();
        let velocity_BTA = &records.iter().find(|(name, _)| name == "velocity").unwrap().1;
        let noise_BTA = FixedNoise::new(3).normal(&velocity_BTA.size(), Device::Cpu);
        let expected_BTA = (noise_BTA - velocity_BTA).narrow(2, 0, 3);
        let sampled = model.sample(&seen, Mode::Actions, None, &mut FixedNoise::new(3), &Pass::plain(false)).unwrap();
        let difference = distance(&sampled.actions_BTA.unwrap(), &expected_BTA);
        assert!(difference < 1e-5, "a joint layer every {every}: {difference}");
    }
}
