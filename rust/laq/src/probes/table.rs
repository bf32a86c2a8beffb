//! What probes found, as metrics, as a table for people and as one for programs.

use super::score::Estimate;
use hlrp_track::metrics::MetricSpec;
use hlrp_track::run::validation_dir;
use hlrp_track::table::ResultTable;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// One probe: what it reads, and how well it predicts actions from that.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Part of the names of its metrics.
    pub(super) name: &'static str,
    /// For people.
    pub(super) label: &'static str,
    /// Mean R² over the dimensions of the action.
    pub(super) r2: Estimate,
    /// R² of each dimension that varies.
    pub(super) r2_of_dims: Vec<f64>,
    /// How much of what frame t and the state leave open it explains; none where it reads nothing else.
    pub(super) partial_r2: Option<Estimate>,
    /// The same in each resample, `[R]`.
    #[serde(skip)]
    pub(super) partial_R: Option<Tensor>,
}

impl Clone for Row {
    fn clone(&self) -> Self {
        let partial_R = self.partial_R.as_ref().map(Tensor::shallow_clone);
        Self { r2_of_dims: self.r2_of_dims.clone(), partial_R, ..*self }
    }
}

impl Row {
    /// From R² in each resample `[R,A]` and, where the probe reads more than the context, the partial R².
    pub(super) fn new((name, label): (&'static str, &'static str), r2_RA: &Tensor, partial_R: Option<Tensor>) -> Self {
        let dims = r2_RA.select(0, 0);
        let r2_of_dims = (0..dims.size()[0]).map(|dim| dims.double_value(&[dim])).collect();
        let r2_R = r2_RA.mean_dim([1].as_slice(), false, Kind::Double);
        let partial_r2 = partial_R.as_ref().map(Estimate::of);
        Self { name, label, r2: Estimate::of(&r2_R), r2_of_dims, partial_r2, partial_R }
    }
}

/// Name and label of each probe, in the order of the table. The first two are those of the model.
pub(super) const CODES: (&str, &str) = ("codes", "codes");
pub(super) const VECTORS: (&str, &str) = ("vectors", "vectors before the quantizer");
pub(super) const CODES_NETWORK: (&str, &str) = ("codes_network", "codes, by a small network");
pub(super) const VECTORS_NETWORK: (&str, &str) = ("vectors_network", "vectors, by a small network");
pub(super) const RANDOM_CODES_NETWORK: (&str, &str) =
    ("random_codes_network", "floor: codes of random weights, by a small network");
pub(super) const RANDOM_CODES: (&str, &str) = ("random_codes", "floor: codes of random weights");
pub(super) const RANDOM_VECTORS: (&str, &str) = ("random_vectors", "floor: vectors of random weights");
pub(super) const SHUFFLED: (&str, &str) = ("shuffled", "floor: vectors of other pairs");
pub(super) const STATE: (&str, &str) = ("state", "floor: state at t");
pub(super) const FRAME: (&str, &str) = ("frame", "floor: frame t");
pub(super) const DIFFERENCE: (&str, &str) = ("difference", "reference: difference of the frames");
pub(super) const STATE_DIFFERENCE: (&str, &str) = ("state_difference", "ceiling: difference of the states");

/// What codes and vectors must exceed to say anything.
const FLOORS: [(&str, &str); 4] = [RANDOM_CODES, SHUFFLED, STATE, FRAME];
/// The metric with the highest R² of [`FLOORS`].
const BEST_FLOOR: &str = "val/probe_floor_r2";

/// The metric with the least difference between the partial R² of the codes and that of codes of random weights: 97.5 % of the resamples have more.
const LEAST_DIFFERENCE: &str = "val/probe_codes_above_random";

/// The partial R² of codes beside that of codes of random weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartialR2 {
    pub(crate) codes: f64,
    pub(crate) random: f64,
    /// The least difference of the two that the held-out episodes allow.
    pub(crate) least_difference: f64,
}

impl PartialR2 {
    /// Whether the codes say more than those of random weights, and more than nothing: what is fitted to random codes may do harm on
    /// held-out episodes.
    pub(crate) fn carries(&self) -> bool {
        self.least_difference + self.random.min(0.0) > 0.0
    }

    /// Whether the codes say as little as those of random weights, or as nothing, whatever the held-out episodes leave open.
    pub(crate) fn is_at_random(&self) -> bool {
        /// Differences between seeds are larger.
        const NEAR: f64 = 0.05;
        self.codes - self.random.max(0.0) < NEAR
    }

    /// That of a validation; none where nothing was probed.
    pub(crate) fn of(metrics: &BTreeMap<String, f64>) -> Option<Self> {
        let value = |name: &str| metrics.get(name).copied();
        Some(Self {
            codes: value(&partial_metric(CODES.0))?,
            random: value(&partial_metric(RANDOM_CODES.0))?,
            least_difference: value(LEAST_DIFFERENCE)?,
        })
    }
}

/// Name of the metric with the R² of a probe.
pub(super) fn r2_metric(name: &str) -> String {
    format!("val/probe_{name}_r2")
}

/// Name of the metric with the partial R² of a probe.
pub(super) fn partial_metric(name: &str) -> String {
    format!("val/probe_{name}_partial_r2")
}

/// The metrics of `rows`, by full name.
pub(super) fn values(rows: &[Row]) -> BTreeMap<String, f64> {
    let r2 = rows.iter().map(|row| (r2_metric(row.name), row.r2.value));
    let partial = rows.iter().filter_map(|row| Some((partial_metric(row.name), row.partial_r2?.value)));
    let floors = rows.iter().filter(|row| FLOORS.iter().any(|(name, _)| *name == row.name));
    let best = floors.map(|row| row.r2.value).reduce(f64::max);
    let partial_R = |(name, _): (&str, &str)| rows.iter().find(|row| row.name == name)?.partial_R.as_ref();
    let difference = partial_R(CODES)
        .zip(partial_R(RANDOM_CODES))
        .map(|(codes_R, random_R)| Estimate::of(&(codes_R - random_R)).low);
    let single = [(BEST_FLOOR, best), (LEAST_DIFFERENCE, difference)];
    let single = single.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    r2.chain(partial).chain(single).collect()
}

/// The metrics that [`values`] returns.
pub(super) fn specs(has_codes: bool, has_states: bool) -> Vec<MetricSpec> {
    let shown = |name: String, label: &str| MetricSpec::new(name, label).higher_is_better();
    let mut specs = Vec::new();
    if has_codes {
        specs.push(shown(r2_metric(CODES.0), "R² of actions, from codes"));
    }
    specs.push(shown(r2_metric(VECTORS.0), "R² of actions, from vectors"));
    if has_codes {
        specs.push(shown(r2_metric(CODES_NETWORK.0), "R² of actions, from codes by a small network"));
        specs.push(MetricSpec::detail(r2_metric(RANDOM_CODES_NETWORK.0)));
    }
    specs.push(MetricSpec::detail(r2_metric(VECTORS_NETWORK.0)).higher_is_better());
    specs.push(MetricSpec::new(BEST_FLOOR, "R² of actions, best floor"));
    let partial = |name: &str, label: &str| shown(partial_metric(name), label);
    if has_codes {
        specs.push(partial(CODES.0, "R² of actions beyond frame t, from codes"));
    }
    specs.push(partial(VECTORS.0, "R² of actions beyond frame t, from vectors"));
    if has_codes {
        let label = "R² of actions beyond frame t, codes of random weights";
        specs.push(MetricSpec::new(partial_metric(RANDOM_CODES.0), label));
        specs.extend([r2_metric(RANDOM_CODES.0), LEAST_DIFFERENCE.to_owned()].map(MetricSpec::detail));
    }
    for (name, _) in [RANDOM_VECTORS, SHUFFLED, DIFFERENCE] {
        specs.extend([r2_metric(name), partial_metric(name)].map(MetricSpec::detail));
    }
    specs.push(MetricSpec::detail(r2_metric(FRAME.0)));
    if has_states {
        specs.push(MetricSpec::detail(r2_metric(STATE.0)));
        specs.extend([r2_metric(STATE_DIFFERENCE.0), partial_metric(STATE_DIFFERENCE.0)].map(MetricSpec::detail));
    }
    specs
}

/// On how much probes were fitted and tested.
pub(super) struct Sizes {
    pub(super) num_pairs: [usize; 2],
    pub(super) num_episodes: [usize; 2],
}

/// One row for each probe.
pub(super) fn table(rows: &[Row]) -> ResultTable {
    let shown = |Estimate { value, low, high }: Estimate| [format!("{value:.3}"), format!("[{low:.3}, {high:.3}]")];
    let table = ResultTable::new(["probe", "R²", "95 %", "partial R²", "95 % ", "R² of each dimension"]);
    rows.iter().fold(table, |table, row| {
        let dims = row.r2_of_dims.iter().map(|r2| format!("{r2:.2}")).collect::<Vec<_>>().join(" ");
        let [r2, r2_interval] = shown(row.r2);
        let [partial, partial_interval] = row.partial_r2.map(shown).unwrap_or_default();
        table.row([row.label.to_owned(), r2, r2_interval, partial, partial_interval, dims])
    })
}

/// What the table says.
pub(super) fn note(Sizes { num_pairs, num_episodes }: &Sizes) -> String {
    format!(
        "How well a ridge, or where it says so a small network, predicts the sum of the actions from frame t to frame t+k \
         (standardised) of held-out episodes: fitted on {} pairs of {} training episodes, tested on {} pairs of {} held-out ones. \
         Intervals: 95 % of {} samples of the held-out episodes, drawn with replacement. Partial R²: the part of what frame t and the \
         state at t leave open.",
        num_pairs[0],
        num_episodes[0],
        num_pairs[1],
        num_episodes[1],
        super::score::NUM_RESAMPLES,
    )
}

/// Writes `probes.md` and `probes.json` into the folder of the validation after `step` steps.
///
/// # Errors
/// The folder is not writable.
pub(super) fn write(run_dir: &Path, step: u64, rows: &[Row], sizes: &Sizes) -> anyhow::Result<()> {
    let text =
        format!("# Actions in the latents after step {step}\n\n{}\n\n{}\n", note(sizes), table(rows).to_markdown());
    let dir = validation_dir(run_dir, step)?;
    hlrp_track::fs::write_atomic(&dir.join("probes.md"), text)?;
    Ok(hlrp_track::fs::write_json(&dir.join("probes.json"), rows)?)
}
