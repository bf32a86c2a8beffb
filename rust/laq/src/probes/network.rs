//! A small network as a probe: what a ridge cannot read because it is not linear.
//!
//! Shape suffixes: N pairs that a probe is fitted on, M pairs that it is tested on, P features, A dimensions of the target.

use super::linear::Features;
use hlrp_torch::{TorchError, rng};
use tch::{Device, Kind, Tensor, no_grad, with_grad};

/// Width of both hidden layers.
const WIDTH: i64 = 64;
/// Steps over all pairs of the fit.
const NUM_STEPS: usize = 200;
/// Steps between two looks at the pairs that decide when to stop.
const CHECK_EVERY: usize = 10;
/// Learning rate of Adam.
const RATE: f64 = 1e-2;
/// Decay of Adam's moments.
const BETAS: [f64; 2] = [0.9, 0.999];
/// Keeps a step of Adam finite.
const EPS: f64 = 1e-8;
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
        with_grad(|| layers.step(&kept_NP, &kept_NA, step as i32));
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

/// The weights, each with its gradient and Adam's two moments.
struct Layers {
    parameters: Vec<Tensor>,
    moments: Vec<[Tensor; 2]>,
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
        let moments = parameters.iter().map(|x| no_grad(|| [x.zeros_like(), x.zeros_like()])).collect();
        Ok(Self { parameters, moments })
    }

    fn predict(&self, rows: &Tensor) -> Tensor {
        let last = self.parameters.len() - 2;
        (0..=last).step_by(2).fold(rows.shallow_clone(), |x, at| {
            let x = x.matmul(&self.parameters[at]) + &self.parameters[at + 1];
            if at == last { x } else { x.relu() }
        })
    }

    /// The step of Adam with this number, 1-based, on the mean squared error.
    fn step(&mut self, rows_NP: &Tensor, target_NA: &Tensor, step: i32) {
        let loss = (self.predict(rows_NP) - target_NA).square().mean(Kind::Float);
        let gradients = Tensor::run_backward(&[loss], &self.parameters, false, false);
        no_grad(|| {
            for ((parameter, [first, second]), gradient) in
                self.parameters.iter_mut().zip(&mut self.moments).zip(&gradients)
            {
                *first = &*first * BETAS[0] + gradient * (1.0 - BETAS[0]);
                *second = &*second * BETAS[1] + gradient.square() * (1.0 - BETAS[1]);
                let [first, second] =
                    [(&*first, BETAS[0]), (&*second, BETAS[1])].map(|(moment, beta)| moment / (1.0 - beta.powi(step)));
                let _ = parameter.g_sub_(&(first / (second.sqrt() + EPS) * RATE));
            }
        });
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
