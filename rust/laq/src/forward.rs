//! The frames of a forward model (`model.decoders.forward`): it predicts the features of the frame one step after frame t, of n equal steps
//! from t to t+k, from the codes of a pair that in training spans a random number of steps, from 1 to n.
//!
//! A sample of the loader has the frames at 0, k, k/n, 2k/n, … after t; what the model sees has three: t, the later frame of the pair, and
//! the one a step after t. In a validation the pair is (t, t+k).
//!
//! Shape suffixes: B samples, T frames, C channels, H×W pixels.

use hlrp_schema::RequestConfig;
use hlrp_torch::World;
use tch::{Device, Kind, Tensor};

/// Place of frame t+k in a sample.
const WHOLE: i64 = 1;

/// The request of a validation sample: the pair of `request`, and the frame a step after t.
pub(crate) fn validation_request(request: &RequestConfig, num_steps: i64) -> RequestConfig {
    request.with_steps(num_steps, 1..num_steps.min(2))
}

/// Frames of a training sample and of a validation sample.
pub(crate) fn num_frames(num_steps: i64) -> [i64; 2] {
    [num_steps + 1, num_steps.min(2) + 1]
}

/// Training samples `[B,n+1,…]` as the model sees them, `[B,3,…]`: the steps of each pair are drawn, alike on any number of processes.
pub(crate) fn drawn(samples_BTCHW: &Tensor, num_steps: i64, world: &World) -> Tensor {
    let device = samples_BTCHW.device();
    let num_steps_B = world.own_rows(samples_BTCHW.size()[0], |num_rows| {
        Tensor::randint_low(1, num_steps + 1, [num_rows], (Kind::Int64, device))
    });
    at_steps(samples_BTCHW, &num_steps_B, num_steps)
}

/// Validation samples as the model sees them, `[B,3,…]`.
pub(crate) fn whole(samples_BTCHW: &Tensor, num_steps: i64) -> Tensor {
    let all_B = Tensor::full([samples_BTCHW.size()[0]], num_steps, (Kind::Int64, Device::Cpu));
    at_steps(samples_BTCHW, &all_B.to_device(samples_BTCHW.device()), num_steps)
}

/// Frames t, `num_steps_B` steps later and one step later.
fn at_steps(samples_BTCHW: &Tensor, num_steps_B: &Tensor, num_steps: i64) -> Tensor {
    let later_B = (num_steps_B + 1).where_scalarother(&num_steps_B.ne(num_steps), WHOLE);
    let next = if num_steps == 1 { WHOLE } else { WHOLE + 1 };
    let places_B3 = Tensor::stack(&[later_B.zeros_like(), later_B.shallow_clone(), later_B.full_like(next)], 1);
    let samples_B1 = Tensor::arange(samples_BTCHW.size()[0], (Kind::Int64, samples_BTCHW.device())).unsqueeze(1);
    samples_BTCHW.index(&[Some(samples_B1), Some(places_B3)])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use hlrp_schema::DeltaUnit;
    use hlrp_torch::rng;

    fn request(image_deltas: &[f64]) -> RequestConfig {
        RequestConfig {
            unit: DeltaUnit::Frames,
            image_deltas: image_deltas.to_vec(),
            state_deltas: vec![0.0],
            action_deltas: vec![],
        }
    }

    /// Samples whose frames are one pixel each: the time of the frame in steps, and the number of the sample.
    fn samples(num_samples: i64, times: &[f32]) -> Tensor {
        let times_T = Tensor::from_slice(times).view([1, -1, 1, 1, 1]);
        let numbers_B = Tensor::arange(num_samples, (Kind::Float, Device::Cpu)).view([-1, 1, 1, 1, 1]) * 100.0;
        times_T + numbers_B
    }

    #[test]
    fn the_steps_divide_the_pair() {
        let training_request = |request: &RequestConfig, num_steps| request.with_steps(num_steps, 1..num_steps);
        assert_eq!(training_request(&request(&[-4.0, 16.0]), 4).image_deltas, [-4.0, 16.0, 1.0, 6.0, 11.0]);
        assert_eq!(validation_request(&request(&[0.0, 20.0]), 4).image_deltas, [0.0, 20.0, 5.0]);
        assert_eq!(training_request(&request(&[0.0, 5.0]), 1).image_deltas, [0.0, 5.0]);
        assert_eq!(validation_request(&request(&[0.0, 5.0]), 1).image_deltas, [0.0, 5.0]);
        assert_eq!([num_frames(4), num_frames(2), num_frames(1)], [[5, 3], [3, 3], [2, 2]]);
    }

    #[test]
    fn a_pair_spans_a_random_number_of_steps_and_the_target_is_one_step_away() {
        let drawn = rng::seeded(5, || drawn(&samples(400, &[0.0, 4.0, 1.0, 2.0, 3.0]), 4, &World::single())).unwrap();
        assert_eq!(drawn.size(), [400, 3, 1, 1, 1]);
        let times_B3 = drawn.view([400, 3]) - Tensor::arange(400, (Kind::Float, Device::Cpu)).unsqueeze(1) * 100.0;
        let times: Vec<f32> = Vec::try_from(times_B3.reshape([-1])).unwrap();
        for sample in times.chunks(3) {
            assert!(sample[0] == 0.0 && [1.0, 2.0, 3.0, 4.0].contains(&sample[1]) && sample[2] == 1.0, "{sample:?}");
        }
        for steps in [1.0, 2.0, 3.0, 4.0] {
            let num = times.chunks(3).filter(|sample| sample[1] == steps).count();
            assert!((60..140).contains(&num), "{num} of 400 pairs span {steps} steps");
        }
    }

    #[test]
    fn a_validation_has_the_whole_pair() {
        let seen = whole(&samples(2, &[0.0, 4.0, 1.0]), 4);
        assert!(seen.equal(&samples(2, &[0.0, 4.0, 1.0])));
        let one = [whole(&samples(2, &[0.0, 1.0]), 1), super::drawn(&samples(2, &[0.0, 1.0]), 1, &World::single())];
        for seen in one {
            assert!(seen.equal(&samples(2, &[0.0, 1.0, 1.0])), "with one step the pair ends at the target");
        }
    }
}
