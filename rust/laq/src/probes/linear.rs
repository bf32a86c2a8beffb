//! The linear algebra of probes, all of it in float64 on the CPU: ridge regression in closed form and principal components.
//!
//! Shape suffixes: N pairs that a probe is fitted on, M pairs that it is tested on, P features, A dimensions of the target, R
//! singular values, C components.

use tch::{Kind, Tensor};

/// Candidates for the penalty of a ridge, on features of variance 1.
const PENALTIES: [f64; 8] = [1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5];
/// A feature with less deviation is constant.
const MIN_STD: f64 = 1e-9;
/// Variance of a component, as a fraction of that of the first, below which it is rounding error.
const MIN_VARIANCE: f64 = 1e-12;

/// Features of the pairs that a probe is fitted on and of those that it is tested on.
pub(super) struct Features {
    pub(super) fit_NP: Tensor,
    pub(super) test_MP: Tensor,
}

impl Features {
    /// These features and those of `other`.
    pub(super) fn with(&self, other: &Features) -> Features {
        Features {
            fit_NP: Tensor::cat(&[&self.fit_NP, &other.fit_NP], 1),
            test_MP: Tensor::cat(&[&self.test_MP, &other.test_MP], 1),
        }
    }

    /// Mean 0 and std 1 over the pairs of the fit; a constant feature keeps its scale.
    pub(super) fn standardised(&self) -> Features {
        let (mean_1P, std_1P) = moments(&self.fit_NP);
        let standardise = |rows: &Tensor| (rows - &mean_1P) / &std_1P;
        Features { fit_NP: standardise(&self.fit_NP), test_MP: standardise(&self.test_MP) }
    }

    /// The first `num` principal components of the pairs of the fit, in descending order; fewer where the rest does not vary.
    pub(super) fn components(&self, num: i64) -> Features {
        let mean_1P = self.fit_NP.mean_dim([0].as_slice(), true, Kind::Double);
        let (fit_NP, test_MP) = (&self.fit_NP - &mean_1P, &self.test_MP - &mean_1P);
        let (variance_N, vectors_NN) = fit_NP.matmul(&fit_NP.tr()).linalg_eigh("L"); // ascending
        let least = variance_N.max() * MIN_VARIANCE;
        let num_varying = variance_N.gt_tensor(&least).sum(Kind::Int64).int64_value(&[]);
        let num = num.min(num_varying);
        let last = |x: &Tensor, dim: i64| x.narrow(dim, x.size()[dim as usize] - num, num).flip([dim]);
        let scale_C = last(&variance_N, 0).sqrt();
        let components_PC = fit_NP.tr().matmul(&last(&vectors_NN, 1)) / scale_C;
        Features { fit_NP: fit_NP.matmul(&components_PC), test_MP: test_MP.matmul(&components_PC) }
    }
}

/// What a ridge predicts of the pairs of the test, `[M,A]`. The penalty is the one that predicts best what `held_out_N` marks,
/// among the pairs of the fit, from the rest of them.
pub(super) fn ridge(features: &Features, target_NA: &Tensor, held_out_N: &Tensor) -> Tensor {
    let part = |is_part_N: &Tensor| {
        let index = is_part_N.nonzero().squeeze_dim(1);
        (features.fit_NP.index_select(0, &index), target_NA.index_select(0, &index))
    };
    let ((kept_NP, kept_NA), (held_out_MP, held_out_MA)) = (part(&held_out_N.logical_not()), part(held_out_N));
    let tried = predictions(&kept_NP, &kept_NA, &held_out_MP, &PENALTIES);
    let error = |predicted_MA: &Tensor| (predicted_MA - &held_out_MA).square().sum(Kind::Double).double_value(&[]);
    let errors = tried.iter().map(error).zip(PENALTIES);
    let (_, best) = errors.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, PENALTIES[0]));
    predictions(&features.fit_NP, target_NA, &features.test_MP, &[best]).remove(0)
}

/// What ridges with each of `penalties` predict of `rows_MP`, each `[M,A]`.
fn predictions(fit_NP: &Tensor, target_NA: &Tensor, rows_MP: &Tensor, penalties: &[f64]) -> Vec<Tensor> {
    let Features { fit_NP, test_MP } =
        Features { fit_NP: fit_NP.shallow_clone(), test_MP: rows_MP.shallow_clone() }.standardised();
    let mean_1A = target_NA.mean_dim([0].as_slice(), true, Kind::Double);
    let (u_NR, s_R, v_PR) = fit_NP.svd(true, true);
    let target_RA = u_NR.tr().matmul(&(target_NA - &mean_1A));
    let rows_MR = test_MP.matmul(&v_PR);
    let predict = |penalty: &f64| {
        let gain_R = &s_R / (s_R.square() + *penalty);
        rows_MR.matmul(&(&target_RA * gain_R.unsqueeze(1))) + &mean_1A
    };
    penalties.iter().map(predict).collect()
}

/// Mean and std of the columns, each `[1,P]`; the std of a constant is 1.
fn moments(rows_NP: &Tensor) -> (Tensor, Tensor) {
    let mean_1P = rows_NP.mean_dim([0].as_slice(), true, Kind::Double);
    let std_1P = (rows_NP - &mean_1P).square().mean_dim([0].as_slice(), true, Kind::Double).sqrt();
    let std_1P = std_1P.where_self(&std_1P.gt(MIN_STD), &std_1P.ones_like());
    (mean_1P, std_1P)
}

/// Which columns vary, `bool [P]`.
pub(super) fn varies(rows_NP: &Tensor) -> Tensor {
    rows_NP.std_dim([0].as_slice(), false, false).gt(MIN_STD)
}
