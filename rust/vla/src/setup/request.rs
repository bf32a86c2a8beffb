//! Which times of an episode a sample holds.
//!
//! Training needs the present, the teacher's later frame and the actions from the present on. Validation compares with what repeating
//! the past would predict, so its samples also hold one frame pair and one action before.

use crate::processor::TimeIndices;
use hlrp_config::Problem;
use hlrp_data::LabelRequest;
use hlrp_schema::{DeltaUnit, PairSpacing, RequestConfig, VlaConfig};

/// What samples of both splits hold, and where in them.
pub(crate) struct Requests {
    /// Of training samples: images `[present]` or `[present, later]`, actions from the present on.
    pub(crate) train: RequestConfig,
    /// Of validation samples: the same with one image and one action before.
    pub(crate) validation: RequestConfig,
    /// Offsets of the images that a sample must have: the present, and the teacher's later frame where only latent actions are learned.
    /// With actions, a pair without its later frame is masked.
    pub(crate) anchor_images: Vec<f64>,
    /// Labels of training samples: those of the present.
    pub(crate) labels: LabelRequest,
    /// Labels of validation samples: also those of the frame pair that ends at the present.
    pub(crate) validation_labels: LabelRequest,
    /// Where training samples hold the present.
    pub(crate) indices: TimeIndices,
}

impl Requests {
    /// Fills in what the configuration leaves to the teacher, the model and the sources' `rates` in frames per second. Where datasets have
    /// labels, of the keys `label_keys`, samples do not show the later frame.
    ///
    /// # Errors
    /// Offsets that contradict the teacher's, or that cannot be filled in.
    pub(crate) fn new(
        config: &VlaConfig,
        pair: Option<&PairSpacing>,
        label_keys: Vec<String>,
        rates: &[f64],
    ) -> Result<Self, Problem> {
        let request = &config.data.request;
        let pair = images(request, pair, rates)?;
        let images = if label_keys.is_empty() { pair.clone() } else { vec![0.0] };
        let steps = 0..config.policy.model.arch.get().chunk_size();
        let actions = match (request.action_deltas.as_slice(), request.unit, common(rates)) {
            ([], DeltaUnit::Frames, _) => steps.map(|step| step as f64).collect(),
            ([], DeltaUnit::Seconds, Some(rate)) => steps.map(|step| step as f64 / rate).collect(),
            ([], DeltaUnit::Seconds, None) if !config.policy.objective.mode.with_actions() => vec![0.0],
            ([], DeltaUnit::Seconds, None) => {
                let problem = format!("[] means frames, but the sources have {rates:?} of them per second");
                let hint = "list the seconds of each step of the action chunk";
                return Err(Problem::new("data.request.action_deltas", problem, hint));
            }
            (given, ..) => given.to_vec(),
        };
        let frame = match request.unit {
            DeltaUnit::Frames => 1.0,
            DeltaUnit::Seconds => rates.iter().map(|rate| rate.recip()).fold(0.0, f64::max),
        };
        let before = |deltas: &[f64]| deltas[0] - deltas.get(1).map_or(frame, |second| second - deltas[0]);
        let with_past = |deltas: &[f64]| [&[before(deltas)], deltas].concat();
        let state = request.state_deltas.iter().position(|delta| *delta == 0.0).unwrap_or(0);
        let with_actions = config.policy.objective.mode.with_actions();
        let labels = LabelRequest { keys: label_keys, deltas: vec![0.0] };
        Ok(Self {
            anchor_images: if with_actions { vec![0.0] } else { pair.clone() },
            validation_labels: LabelRequest { deltas: vec![before(&pair), 0.0], ..labels.clone() },
            labels,
            validation: RequestConfig {
                image_deltas: with_past(&images),
                action_deltas: with_past(&actions),
                ..request.clone()
            },
            train: RequestConfig { image_deltas: images, action_deltas: actions, ..request.clone() },
            indices: TimeIndices { image: 0, state: state as i64, action: 0, label: 0 },
        })
    }
}

/// Offsets of the images: the present alone, or the teacher's pair.
fn images(request: &RequestConfig, pair: Option<&PairSpacing>, rates: &[f64]) -> Result<Vec<f64>, Problem> {
    const KEY: &str = "data.request.image_deltas";
    let given = &request.image_deltas;
    let Some(pair) = pair else {
        let alone = given.as_slice() == [0.0];
        let problem = format!("{given:?}: without a teacher a policy sees the present alone");
        return alone.then(|| vec![0.0]).ok_or_else(|| Problem::new(KEY, problem, "set it to [0]"));
    };
    if pair.image_deltas.len() != 2 || pair.image_deltas[0] != 0.0 {
        let problem =
            format!("the teacher's frame pairs are {pair}, a policy sees the first frame and that is offset 0");
        return Err(Problem::new(
            "policy.teacher.checkpoint",
            problem,
            "train the teacher with data.request.image_deltas=[0,k]",
        ));
    }
    let Some(own) = in_unit(pair, request.unit, common(rates)) else {
        let problem = format!("the teacher's frame pairs are {pair}, the sources have {rates:?} frames per second");
        return Err(Problem::new("data.request.unit", problem, "use the teacher's unit"));
    };
    if given.as_slice() == [0.0] || *given == own {
        return Ok(own);
    }
    let problem = format!("{given:?}, but the teacher was trained on frame pairs of {pair}");
    Err(Problem::new(KEY, problem, "set it to [0] to take the teacher's, or choose a teacher of this spacing"))
}

/// A pair's offsets in `unit`; nothing where the sources have no common `rate`, or where the offsets are not whole frames.
fn in_unit(pair: &PairSpacing, unit: DeltaUnit, rate: Option<f64>) -> Option<Vec<f64>> {
    /// Fraction of a frame that a rounded number of seconds may be off.
    const TOLERANCE: f64 = 1e-3;
    let whole = |frames: f64| ((frames - frames.round()).abs() < TOLERANCE).then(|| frames.round());
    let deltas = pair.image_deltas.iter();
    match (pair.unit, unit) {
        (DeltaUnit::Seconds, DeltaUnit::Frames) => deltas.map(|seconds| whole(seconds * rate?)).collect(),
        (DeltaUnit::Frames, DeltaUnit::Seconds) => deltas.map(|frames| Some(frames / rate?)).collect(),
        _ => Some(pair.image_deltas.clone()),
    }
}

/// The rate that all sources have.
fn common(rates: &[f64]) -> Option<f64> {
    rates.first().copied().filter(|first| rates.iter().all(|rate| rate == first))
}

#[cfg(test)]
mod tests {
    use super::{common, in_unit};
    use hlrp_schema::DeltaUnit::{Frames, Seconds};
    use hlrp_schema::PairSpacing;

    #[test]
    fn a_pair_has_its_offsets_in_either_unit() {
        let seconds = PairSpacing { unit: Seconds, image_deltas: vec![0.0, 0.5] };
        let frames = PairSpacing { unit: Frames, image_deltas: vec![0.0, 5.0] };
        assert_eq!(in_unit(&seconds, Frames, Some(10.0)), Some(vec![0.0, 5.0]));
        assert_eq!(in_unit(&frames, Seconds, Some(10.0)), Some(vec![0.0, 0.5]));
        assert_eq!(in_unit(&seconds, Seconds, None), Some(vec![0.0, 0.5]));
        assert_eq!(in_unit(&seconds, Frames, Some(15.0)), None, "7.5 frames");
        assert_eq!(in_unit(&seconds, Frames, common(&[10.0, 30.0])), None, "5 frames here, 15 there");
        assert_eq!(in_unit(&seconds, Frames, common(&[30.0, 30.0])), Some(vec![0.0, 15.0]));
    }
}
