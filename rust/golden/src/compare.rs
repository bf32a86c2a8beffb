//! Numbers against recorded numbers.

use crate::case::Case;
use hlrp_schema::Precision;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tch::{Device, Kind, Tensor};

/// Tolerance relative to a tensor's largest magnitude.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tolerance {
    /// Results of a forward pass.
    Forward,
    /// Gradients, and what several optimizer steps lead to.
    Gradient,
    /// Zero in exact arithmetic: only its size counts.
    Zero,
    /// A weight after several optimizer steps, which moved it by at most `movement`.
    Trained {
        /// Largest movement of an entry in the reference.
        movement: f64,
    },
    /// Formulas in float64.
    Formula,
}

impl Tolerance {
    fn relative(self) -> f64 {
        match self {
            Self::Forward => 1e-5,
            Self::Gradient => 1e-4,
            Self::Zero => 0.0,
            Self::Trained { .. } => 1e-4,
            Self::Formula => 1e-12,
        }
    }

    /// Tolerance under bf16 autocast, whose factors have 8 significant bits: of the norm of the difference, relative to that of the
    /// recorded tensor.
    fn rounded(self) -> f64 {
        match self {
            Self::Forward => 5e-2,
            Self::Gradient => 4e-1,
            Self::Trained { .. } => 1.0,
            Self::Zero | Self::Formula => self.relative(),
        }
    }
}

/// Largest magnitude that bf16 leaves of a number that is zero in exact arithmetic.
const ROUNDED_ZERO: f64 = 1e-2;
/// Largest magnitude that rounding leaves of a number that is zero in exact arithmetic.
const ZERO_NOISE: f64 = 1e-5;
/// Adam turns the rounding noise of a small gradient into a fraction of its movement; never more than an absolute 1e-4 is tolerated.
const MOVEMENT_SHARE: f64 = 1e-2;
const LARGEST_TRAINED_ERROR: f64 = 1e-4;
/// Tolerance where the reference and its noise are exactly zero.
const FLOOR: f64 = 1e-7;
/// A tolerance is at least this many times the reference's own movement.
const NOISE_FACTOR: f64 = 20.0;

struct Difference {
    name: String,
    error: f64,
    tolerance: f64,
}

impl Difference {
    /// 1 = at the tolerance.
    fn ratio(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.tolerance }
    }
}

/// Everything compared in one case.
pub(crate) struct Comparison {
    case: String,
    expected: BTreeMap<String, Tensor>,
    noise: BTreeMap<String, f64>,
    seen: BTreeSet<String>,
    worst: Option<Difference>,
    num_compared: usize,
    problems: Vec<String>,
    precision: Precision,
}

impl Comparison {
    pub(crate) fn new(case: &Case) -> Self {
        Self {
            case: case.name.clone(),
            precision: case.precision(),
            expected: case.outputs.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect(),
            noise: case.noise.clone(),
            seen: BTreeSet::new(),
            worst: None,
            num_compared: 0,
            problems: Vec::new(),
        }
    }

    /// Whether the case is computed under bf16 autocast.
    pub(crate) fn is_rounded(&self) -> bool {
        self.precision == Precision::Bf16Mixed
    }

    /// Whether the case holds a tensor of this name.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.expected.contains_key(name)
    }

    /// Compares with the recorded tensor `name` when there is one. Only the order of elements counts, not how they are grouped.
    pub(crate) fn check(&mut self, name: &str, ours: &Tensor, tolerance: Tolerance) {
        let Some(expected) = self.expected.get(name).map(Tensor::shallow_clone) else { return };
        self.seen.insert(name.to_owned());
        self.check_against(name, ours, &expected, tolerance);
    }

    /// Compares with a tensor recorded elsewhere.
    pub(crate) fn check_against(&mut self, name: &str, ours: &Tensor, expected: &Tensor, tolerance: Tolerance) {
        self.num_compared += 1;
        if ours.numel() != expected.numel() {
            self.problems.push(format!("{name}: shape {:?} instead of {:?}", ours.size(), expected.size()));
            return;
        }
        if expected.numel() == 0 {
            return;
        }
        let wide = |x: &Tensor| x.detach().to_device(Device::Cpu).to_kind(Kind::Double).reshape([-1]);
        let (ours, exact) = (wide(ours), wide(expected));
        let scale = exact.abs().max().double_value(&[]);
        if self.is_rounded() {
            return self.check_rounded(name, &ours, &exact, expected.kind(), tolerance);
        }
        let noise = NOISE_FACTOR * self.noise.get(name).copied().unwrap_or(0.0);
        let (error, tolerance) = match (expected.kind(), tolerance) {
            (Kind::Float | Kind::Double, Tolerance::Zero) => {
                (ours.abs().max().double_value(&[]), noise.max(ZERO_NOISE))
            }
            (Kind::Float | Kind::Double, tolerance) => {
                let extra = match tolerance {
                    Tolerance::Trained { movement } => (MOVEMENT_SHARE * movement).min(LARGEST_TRAINED_ERROR),
                    _ => 0.0,
                };
                let floor = if scale == 0.0 && noise == 0.0 { FLOOR } else { 0.0 };
                let allowed = noise.max(tolerance.relative() * scale).max(extra).max(floor);
                ((ours - exact).abs().max().double_value(&[]), allowed)
            }
            _ => ((ours - exact).abs().max().double_value(&[]), 0.0),
        };
        self.note(Difference { name: name.to_owned(), error, tolerance });
    }

    /// Compares what bf16 autocast computed: the norm of the difference, relative to that of the recorded tensor. Integers such as codes
    /// depend on rounded values, and a different one changes all that follows from it: up to half of them may differ.
    fn check_rounded(&mut self, name: &str, ours: &Tensor, exact: &Tensor, kind: Kind, tolerance: Tolerance) {
        let norm = |x: &Tensor| x.norm().double_value(&[]);
        let is_float = |kind| matches!(kind, Kind::Float | Kind::Double | Kind::BFloat16);
        let (error, tolerance) = match (kind, tolerance) {
            (kind, Tolerance::Zero) if is_float(kind) => (ours.abs().max().double_value(&[]), ROUNDED_ZERO),
            (kind, tolerance) if is_float(kind) => {
                let error = norm(&(ours - exact));
                (error / norm(exact).max(ROUNDED_ZERO), tolerance.rounded())
            }
            _ => (ours.ne_tensor(exact).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]), 0.5),
        };
        self.note(Difference { name: name.to_owned(), error, tolerance });
    }

    /// Compares two numbers.
    pub(crate) fn check_number(&mut self, name: &str, ours: f64, expected: f64, tolerance: Tolerance) {
        self.check_against(name, &Tensor::from(ours), &Tensor::from(expected), tolerance);
    }

    /// Compares the part of the recorded tensor `name` that both sides define alike.
    pub(crate) fn check_part(&mut self, name: &str, ours: &Tensor, expected: &Tensor, tolerance: Tolerance) {
        self.seen.insert(name.to_owned());
        self.check_against(name, ours, expected, tolerance);
    }

    /// Requires a fact that no tensor expresses.
    pub(crate) fn require(&mut self, name: &str, holds: bool, what: &str) {
        self.num_compared += 1;
        if !holds {
            self.problems.push(format!("{name}: {what}"));
        }
    }

    /// Notes a recorded tensor from which this project differs on purpose; `holds` is what is true instead.
    pub(crate) fn meant_difference(&mut self, name: &str, holds: bool, what: &str) {
        self.seen.insert(name.to_owned());
        self.require(name, holds, what);
    }

    pub(crate) fn passed(&self) -> bool {
        self.problems.is_empty() && self.missed().next().is_none()
    }

    fn missed(&self) -> impl Iterator<Item = &String> {
        self.expected.keys().filter(|name| !self.seen.contains(*name))
    }

    fn note(&mut self, difference: Difference) {
        let ratio = difference.ratio();
        if ratio.is_nan() || ratio > 1.0 {
            self.problems.push(format!(
                "{}: error {:.3e}, tolerance {:.3e}",
                difference.name, difference.error, difference.tolerance
            ));
        }
        if self.worst.as_ref().is_none_or(|worst| ratio.is_nan() || ratio > worst.ratio()) {
            self.worst = Some(difference);
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed() { "ok" } else { "FAIL" };
        write!(f, "{:<20} {verdict:<5}", self.case)?;
        let num_seen = self.seen.iter().filter(|name| self.expected.contains_key(*name)).count();
        write!(f, " {}/{} recorded tensors, {} comparisons", num_seen, self.expected.len(), self.num_compared)?;
        if let Some(worst) = &self.worst {
            let percent = 100.0 * worst.ratio();
            write!(f, ", worst {:.2e} at {} ({percent:.1} % of its tolerance)", worst.error, worst.name)?;
        }
        for problem in &self.problems {
            write!(f, "\n    {problem}")?;
        }
        for name in self.missed() {
            write!(f, "\n    {name}: not compared")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(ours: &[f32], expected: &[f32]) -> bool {
        let mut comparison = Comparison {
            case: "made up".to_owned(),
            expected: BTreeMap::from([("x".to_owned(), Tensor::from_slice(expected))]),
            noise: BTreeMap::new(),
            seen: BTreeSet::new(),
            worst: None,
            num_compared: 0,
            problems: Vec::new(),
            precision: Precision::Float32,
        };
        comparison.check("x", &Tensor::from_slice(ours), Tolerance::Gradient);
        comparison.passed()
    }

    #[test]
    fn rounding_of_an_exact_zero_is_no_difference() {
        assert!(compared(&[3e-8, -1e-9], &[0.0, 0.0]));
        assert!(!compared(&[1e-6, 0.0], &[0.0, 0.0]), "the floor is no excuse");
        assert!(!compared(&[3e-8, 2e-9], &[0.0, 1e-9]), "a tensor with values has its own scale");
        assert!(!compared(&[f32::NAN, 0.0], &[0.0, 0.0]));
    }
}
