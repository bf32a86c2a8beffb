//! Real-time chunking: what draws a chunk towards the one before it.

use crate::fixtures::{FLOAT, GivenNoise, distance, expert_section, expert_with, flow, observation};
use hlrp_config::Hint;
use hlrp_nn::Pass;
use hlrp_schema::policy::{ExpertSpec, LatentHead, Mode};
use hlrp_vla::flow::integrate;
use hlrp_vla::{Architecture, Chunking, ExpertModel, Guidance, PrefixSchedule, VlaError};
use tch::{Device, Tensor};

fn chunking(schedule: PrefixSchedule) -> Chunking {
    Chunking { inference_delay: 1, execution_horizon: 4, prefix_attention_schedule: schedule, max_guidance_weight: 5.0 }
}

/// The velocity is 2 everywhere; the left over actions are 1.
#[test]
fn each_step_is_corrected_by_the_distance_to_what_is_left_over() {
    let left_over = Tensor::ones([4, 1], FLOAT);
    for (schedule, weights) in [
        (PrefixSchedule::Zeros, [1.0, 0.0, 0.0, 0.0, 0.0]),
        (PrefixSchedule::Ones, [1.0, 1.0, 1.0, 1.0, 0.0]),
        (PrefixSchedule::Linear, [1.0, 0.75, 0.5, 0.25, 0.0]),
        (PrefixSchedule::Exp, [1.0, 0.487_55, 0.188_77, 0.041_325, 0.0]),
    ] {
        let guidance = Guidance::new(&chunking(schedule), &left_over, [1, 5, 1], Device::Cpu).unwrap();
        let sampled =
            integrate(&flow(), &Tensor::zeros([1, 5, 1], FLOAT), Some(&guidance), &Pass::plain(false), |x, _, _| {
                Ok::<_, VlaError>(Tensor::full_like(x, 2.0))
            });
        let sampled = Vec::<f32>::try_from(sampled.unwrap().view([-1])).unwrap();
        for (found, weight) in sampled.into_iter().zip(weights) {
            // Four steps from time 1; the factors are min(5, (1−τ)/τ · ((1−τ)² + τ²)/(1−τ)²).
            let expected = [(1.0, 5.0), (0.75, 10.0 / 3.0), (0.5, 2.0), (0.25, 10.0 / 3.0)]
                .iter()
                .fold(0.0, |x, (time, factor)| x - 0.25 * (2.0 - factor * weight * (1.0 - (x - 2.0 * time))));
            assert!((f64::from(found) - expected).abs() < 1e-4, "{schedule:?}, {weight}: {found}, not {expected}");
        }
    }
}

#[test]
fn what_is_left_over_reaches_no_further_than_it_is_long() {
    let short = Tensor::ones([2, 1], FLOAT);
    let guided = |left_over: &Tensor| {
        let guidance = Guidance::new(&chunking(PrefixSchedule::Ones), left_over, [1, 5, 1], Device::Cpu).unwrap();
        let start = Tensor::zeros([1, 5, 1], FLOAT);
        integrate(&flow(), &start, Some(&guidance), &Pass::plain(false), |x, _, _| Ok::<_, VlaError>(x.zeros_like()))
            .unwrap()
    };
    let sampled = Vec::<f32>::try_from(guided(&short).view([-1])).unwrap();
    assert!(sampled[..2].iter().all(|action| *action > 0.5) && sampled[2..].iter().all(|action| *action == 0.0));
    for too_much in [Tensor::ones([6, 1], FLOAT), Tensor::ones([2, 2], FLOAT), Tensor::ones([3, 2, 1], FLOAT)] {
        let error = Guidance::new(&chunking(PrefixSchedule::Ones), &too_much, [1, 5, 1], Device::Cpu).unwrap_err();
        assert!(error.to_string().starts_with("left_over: ") && Hint::hint(&error).is_some(), "{error}");
    }
}

/// In the joint head latents and actions are denoised side by side, and latents do not see actions.
#[test]
fn the_joint_head_guides_its_actions_and_leaves_its_latents_alone() {
    tch::manual_seed(5);
    let spec = expert_with(ExpertSpec { latent_head: LatentHead::JointFlow, ..expert_section() });
    let model = ExpertModel::new(&spec, Device::Cpu).unwrap();
    let shapes = model.noise_shapes(Mode::Multitask, 2);
    let noise: Vec<Tensor> = shapes.iter().map(|(_, shape)| Tensor::randn(shape.as_slice(), FLOAT)).collect();
    let [.., num_steps, dim] = shapes[1].1[..] else { panic!("the second head denoises chunks: {shapes:?}") };
    let left_over = Tensor::full([num_steps, 1], 3.0, FLOAT);
    let sample = |guidance: Option<&Guidance>| {
        tch::manual_seed(1);
        let mut noise = GivenNoise(noise.iter().map(Tensor::shallow_clone).collect());
        model.sample(&observation(), Mode::Multitask, guidance, &mut noise, &Pass::plain(false)).unwrap()
    };
    let guidance =
        Guidance::new(&chunking(PrefixSchedule::Ones), &left_over, [2, num_steps, dim], Device::Cpu).unwrap();
    let (free, guided) = (sample(None), sample(Some(&guidance)));
    assert_eq!(distance(&free.latents_BSD.unwrap(), &guided.latents_BSD.unwrap()), 0.0);
    let to_left_over = |actions_BTA: Option<Tensor>| {
        let first_BT1 = actions_BTA.unwrap().narrow(2, 0, 1);
        distance(&first_BT1, &left_over.expand_as(&first_BT1))
    };
    assert!(to_left_over(guided.actions_BTA) < 0.5 * to_left_over(free.actions_BTA));
}
