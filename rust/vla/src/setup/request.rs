//! Which moments of an episode a sample holds.
//!
//! Training needs the present, the teacher's later frame and the actions from the present on. Validation compares with what repeating
//! the past would predict, so its samples also hold one frame pair and one action before.

use super::mistake::mistake;
use crate::PairSpacing;
use crate::task::Moments;
use hlrp_config::schema::{DeltaUnit, RequestConfig, VlaConfig};

/// What samples of both splits hold, and where in them.
pub(crate) struct Requests {
    /// Of training samples: images `[present]` or `[present, later]`, actions from the present on.
    pub(crate) train: RequestConfig,
    /// Of validation samples: the same with one image and one action before.
    pub(crate) validation: RequestConfig,
    /// Where the present lies in training samples.
    pub(crate) moments: Moments,
}

impl Requests {
    /// Fills in what the configuration leaves to the teacher and the model.
    ///
    /// # Errors
    /// Offsets that contradict the teacher's, or that cannot be filled in.
    pub(crate) fn new(config: &VlaConfig, pair: Option<&PairSpacing>) -> anyhow::Result<Self> {
        let request = &config.data.request;
        let images = images(request, pair)?;
        let actions = match request.action_deltas.as_slice() {
            [] if request.unit == DeltaUnit::Frames || !config.model.mode.with_actions() => {
                (0..config.model.action.chunk_size).map(|step| step as f64).collect()
            }
            [] => {
                let hint = "list the seconds of each step of model.action.chunk_size";
                return Err(mistake("data.request.action_deltas", "[] counts frames, but the unit is seconds", hint));
            }
            given => given.to_vec(),
        };
        let before = |deltas: &[f64]| deltas[0] - deltas.get(1).map_or(1.0, |second| second - deltas[0]);
        let with_past = |deltas: &[f64]| [&[before(deltas)], deltas].concat();
        let state = request.state_deltas.iter().position(|delta| *delta == 0.0).unwrap_or(0);
        Ok(Self {
            validation: RequestConfig {
                image_deltas: with_past(&images),
                action_deltas: with_past(&actions),
                ..request.clone()
            },
            train: RequestConfig { image_deltas: images, action_deltas: actions, ..request.clone() },
            moments: Moments { image: 0, state: state as i64, action: 0 },
        })
    }
}

/// Offsets of the images: the present alone, or the teacher's pair.
fn images(request: &RequestConfig, pair: Option<&PairSpacing>) -> anyhow::Result<Vec<f64>> {
    const KEY: &str = "data.request.image_deltas";
    let given = &request.image_deltas;
    let Some(pair) = pair else {
        let alone = given.as_slice() == [0.0];
        let problem = format!("{given:?}: without a teacher a policy sees the present alone");
        return alone.then(|| vec![0.0]).ok_or_else(|| mistake(KEY, problem, "set it to [0]"));
    };
    if pair.image_deltas.len() != 2 || pair.image_deltas[0] != 0.0 {
        let problem =
            format!("the teacher's frame pairs are {pair}, a policy sees the first frame and that is offset 0");
        return Err(mistake("model.laq.checkpoint", problem, "train the teacher with data.request.image_deltas=[0,k]"));
    }
    if pair.unit != request.unit {
        let problem = format!("the teacher's frame pairs are {pair}");
        return Err(mistake("data.request.unit", problem, "use the teacher's unit"));
    }
    if given.as_slice() == [0.0] || *given == pair.image_deltas {
        return Ok(pair.image_deltas.clone());
    }
    let problem = format!("{given:?}, but the teacher was trained on frame pairs of {pair}");
    Err(mistake(KEY, problem, "set it to [0] to take the teacher's, or choose a teacher of this spacing"))
}
