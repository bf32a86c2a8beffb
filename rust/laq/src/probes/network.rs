//! A small network as a probe: what a ridge cannot read because it is not linear.
//!
//! Shape suffixes: N pairs that a probe is fitted on, M pairs that it is tested on, P features, A dimensions of the target.

use super::linear::Features;
use hlrp_torch::{AdamWStep, TorchError, fused_adamw, rng};
use tch::{Device, Kind, Tensor, no_grad, with_grad};

/// Width of both hidden layers.
const WIDTH: i64 = 64;
/// Steps over all pairs of the fit.
const NUM_STEPS: usize = 200;
/// Steps between two looks at the pairs that decide when to stop.
const CHECK_EVERY: usize = 10;
/// A step of Adam.
const ADAM: AdamWStep = AdamWStep { lr: 1e-2, beta1: 0.9, beta2: 0.999, weight_decay: 0.0, eps: 1e-8 };
/// Of the first weights.
const SEED: u64 = 0;

/// What a network with two hidden layers predicts of the pairs of the test, float64 `[M,A]`: with those weights, of all that it had while it
/// was fitted, that predict best what `held_out_N` marks. Always the same for the same features.
///
/// # Errors
/// Whatever libtorch refuses.
pub(super) fn network(features: &Features, target_NA: &Tensor, held_out_N: &Tensor) -> Result<Tensor, TorchError> {
    let Features { fit_NP, test_MP } = features.standardised();
    let [fit_NP, test_MP, target_NA] = [&fit_NP, &test_MP, target_NA].map(|rows| rows.to_kind(Kind::Float));
    let part = |is_part_N: &Tensor| {
        let index = is_part_N.nonzero().squeeze_dim(1);
        (fit_NP.index_select(0, &index), target_NA.index_select(0, &index))
    };
    let ((kept_NP, kept_NA), (held_out_MP, held_out_MA)) = (part(&held_out_N.logical_not()), part(held_out_N));
    let mut layers = Layers::new(fit_NP.size()[1], target_NA.size()[1])?;
    let mut best = (f64::INFINITY, Tensor::new());
    for step in 1..=NUM_STEPS {
        with_grad(|| layers.step(&kept_NP, &kept_NA))?;
        if step % CHECK_EVERY == 0 {
            let error = no_grad(|| (layers.predict(&held_out_MP) - &held_out_MA).square().sum(Kind::Double));
            let error = error.double_value(&[]);
            if error < best.0 {
                best = (error, no_grad(|| layers.predict(&test_MP)));
            }
        }
    }
    Ok(best.1.to_kind(Kind::Double))
}

/// The weights, and what Adam keeps of each.
struct Layers {
    parameters: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
}

impl Layers {
    fn new(num_features: i64, num_targets: i64) -> Result<Self, TorchError> {
        let layer = |[inputs, outputs]: [i64; 2]| {
            let scale = (2.0 / inputs.max(1) as f64).sqrt();
            let weights = Tensor::randn([inputs, outputs], (Kind::Float, Device::Cpu)) * scale;
            [weights, Tensor::zeros([outputs], (Kind::Float, Device::Cpu))]
        };
        let sizes = [[num_features, WIDTH], [WIDTH, WIDTH], [WIDTH, num_targets]];
        let drawn = rng::seeded(SEED, || sizes.map(layer))?;
        let parameters: Vec<Tensor> = drawn.into_iter().flatten().map(|x| x.set_requires_grad(true)).collect();
        let zeros = |_| no_grad(|| parameters.iter().map(Tensor::zeros_like).collect::<Vec<_>>());
        let [exp_avgs, exp_avg_sqs] = [0, 1].map(zeros);
        let steps = parameters.iter().map(|_| Tensor::zeros([], (Kind::Float, Device::Cpu))).collect();
        Ok(Self { parameters, exp_avgs, exp_avg_sqs, steps })
    }

    fn predict(&self, rows: &Tensor) -> Tensor {
        let last = self.parameters.len() - 2;
        (0..=last).step_by(2).fold(rows.shallow_clone(), |x, at| {
            let x = x.matmul(&self.parameters[at]) + &self.parameters[at + 1];
            if at == last { x } else { x.relu() }
        })
    }

    /// One step on the mean squared error.
    fn step(&mut self, rows_NP: &Tensor, target_NA: &Tensor) -> Result<(), TorchError> {
        let loss = (self.predict(rows_NP) - target_NA).square().mean(Kind::Float);
        let gradients = Tensor::run_backward(&[loss], &self.parameters, false, false);
        no_grad(|| fused_adamw(&self.parameters, &gradients, &self.exp_avgs, &self.exp_avg_sqs, &self.steps, ADAM))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::network;
    use crate::probes::linear::{Features, ridge};
    use tch::{Device, Kind, Tensor};

    #[test]
    fn it_reads_what_no_linear_map_does_and_nothing_from_noise() {
        let draw = |seed: i64, num: i64| {
            tch::manual_seed(seed);
            Tensor::randn([num, 3], (Kind::Double, Device::Cpu))
        };
        let (fit_NP, test_MP) = (draw(1, 400), draw(2, 200));
        let target = |rows: &Tensor| rows.narrow(1, 0, 1).abs() - rows.narrow(1, 1, 1) * rows.narrow(1, 2, 1);
        let held_out_N = Tensor::arange(400, (Kind::Int64, Device::Cpu)).remainder(4).eq(3);
        let features = Features { fit_NP, test_MP };
        let truth_M1 = target(&features.test_MP);
        let r2 = |predicted_M1: Tensor| {
            let error = (predicted_M1 - &truth_M1).square().mean(Kind::Double) / truth_M1.var(false);
            1.0 - error.double_value(&[])
        };
        let target_N1 = target(&features.fit_NP);
        let [of_network, again] = [0, 1].map(|_| r2(network(&features, &target_N1, &held_out_N).unwrap()));
        let of_ridge = r2(ridge(&features, &target_N1, &held_out_N));
        assert!(of_network > 0.8 && of_ridge < 0.2, "{of_network} {of_ridge}");
        assert_eq!(of_network, again);
        let noise = r2(network(&features, &draw(3, 400).narrow(1, 0, 1), &held_out_N).unwrap());
        assert!(noise < 0.1, "{noise}");
    }
}
