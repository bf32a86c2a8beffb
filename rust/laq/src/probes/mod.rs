//! Probes: how well a linear map and a small network predict the actions of held-out episodes from latent actions, beside what anything else
//! predicts.
//!
//! | question | where |
//! |---|---|
//! | On which pairs? | `pairs` |
//! | From which latents? | `latents` |
//! | How is it fitted? | `linear`, `network` |
//! | How is it scored? | `score` |
//! | What is shown? | `table` |
//!
//! An action is largely predictable from where the scene is. The partial R² therefore says how much a latent adds to frame t and the
//! state. Nothing here touches the random generators of the training.
//!
//! Shape suffixes: N pairs of the fit, M pairs of the test, A dimensions of the action, R resamples, P features.

mod latents;
mod linear;
mod network;
mod pairs;
mod score;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use table::PartialR2;

use crate::model::LaqModel;
use hlrp_data::Mixture;
use hlrp_schema::{LaqConfig, ProbesConfig, RequestConfig};
use hlrp_torch::{World, rng};
use hlrp_track::metrics::MetricSpec;
use hlrp_track::table::ResultTable;
use latents::Latents;
use linear::{Features, ridge, varies};
use network::network;
use pairs::{PairSource, Pairs};
use score::{Resamples, partial};
use std::collections::BTreeMap;
use std::path::PathBuf;
use table::{Row, Sizes};
use tch::{Device, Kind, Tensor};

/// The probes of a run.
pub struct Probes {
    config: ProbesConfig,
    batch_size: usize,
    run_dir: PathBuf,
    source: PairSource,
    has_states: bool,
    prepared: Option<Prepared>,
}

/// What stays the same in all validations.
struct Prepared {
    /// Of the fit and of the test.
    pairs: [Pairs; 2],
    num_episodes: [usize; 2],
    /// None where nothing can be fitted.
    problem: Option<Fixed>,
}

/// The problem that every probe solves, and how well it is solved without the model.
struct Fixed {
    /// Actions with mean 0 and std 1 over the pairs of the fit; those dimensions that vary.
    target: Features,
    /// What is known at frame t: components of the frame, and the state.
    context: Features,
    /// Mean R² of the context.
    context_R: Tensor,
    /// Pairs of the fit that choose the penalty, `bool [N]`: every fourth episode.
    held_out_N: Tensor,
    resamples: Resamples,
    floors: Vec<Row>,
}

impl Probes {
    /// The probes of a run of `config` on `mixture`; none where they are off or the data has no actions.
    ///
    /// # Errors
    /// Sources that cannot be split.
    pub fn new(config: &LaqConfig, mixture: &Mixture) -> anyhow::Result<Option<Self>> {
        if !config.validation.probes.enabled {
            return Ok(None);
        }
        let source = PairSource::new(mixture, &config.data.request)?;
        Ok(source.map(|source| Self {
            config: config.validation.probes.clone(),
            batch_size: config.data.loader.batch_size,
            run_dir: config.logging.run_dir.clone(),
            source,
            has_states: mixture.layout().state.is_some(),
            prepared: None,
        }))
    }

    /// The metrics that [`Probes::run`] returns.
    pub(crate) fn metrics(&self, model: &LaqModel) -> Vec<MetricSpec> {
        table::specs(model.dims().codebook_size > 0, self.has_states)
    }

    /// Probes `model` after `step` steps, and writes the table. The first call reads the pairs and probes what does not change.
    ///
    /// # Errors
    /// Data that cannot be read, a folder that is not writable, or another process that is gone.
    pub(crate) fn run(&mut self, model: &LaqModel, step: u64, world: &World) -> anyhow::Result<BTreeMap<String, f64>> {
        let prepared = match self.prepared.take() {
            Some(prepared) => prepared,
            None => Prepared::new(
                self.source.load(&model.config().cameras, self.batch_size, self.config.num_pairs, world)?,
                model,
                world,
            )?,
        };
        let prepared = self.prepared.insert(prepared);
        let Some(rows) = prepared.rows(model, world)? else { return Ok(BTreeMap::new()) };
        if world.is_main() {
            table::write(&self.run_dir, step, &rows, &prepared.sizes())?;
        }
        Ok(table::values(&rows))
    }
}

/// What probes find in a trained model.
pub(crate) struct Found {
    /// The table for people.
    pub(crate) table: ResultTable,
    /// How to read it.
    pub(crate) note: String,
    /// The same for programs.
    pub(crate) rows: Vec<Row>,
}

/// Probes `model` on about `num_pairs` pairs of the training episodes of `mixture` and as many of the held-out ones, at the offsets of
/// `request`; none where the data has no actions.
///
/// # Errors
/// Data that cannot be read.
pub(crate) fn probe(
    model: &LaqModel,
    mixture: &Mixture,
    request: &RequestConfig,
    batch_size: usize,
    num_pairs: usize,
) -> anyhow::Result<Option<Found>> {
    let world = World::single();
    let Some(source) = PairSource::new(mixture, request)? else { return Ok(None) };
    let prepared = Prepared::new(source.load(&model.config().cameras, batch_size, num_pairs, &world)?, model, &world)?;
    let Some(rows) = prepared.rows(model, &world)? else { return Ok(None) };
    Ok(Some(Found { table: table::table(&rows), note: table::note(&prepared.sizes()), rows }))
}

impl Prepared {
    /// Pairs and episodes, of the fit and of the test.
    fn sizes(&self) -> Sizes {
        Sizes { num_pairs: self.pairs.each_ref().map(|pairs| pairs.episodes.len()), num_episodes: self.num_episodes }
    }

    /// What every probe finds in `model`; none where nothing can be fitted, or where its latents are not finite.
    fn rows(&self, model: &LaqModel, world: &World) -> anyhow::Result<Option<Vec<Row>>> {
        let Some(fixed) = &self.problem else { return Ok(None) };
        let latents = Latents::of(model, &self.pairs, world)?;
        if !latents.are_finite() {
            tracing::warn!("no probes: latents are not finite");
            return Ok(None);
        }
        let mut rows = Vec::new();
        rows.extend(latents.codes.as_ref().map(|codes| fixed.row(table::CODES, codes, true)));
        rows.push(fixed.row(table::VECTORS, &latents.vectors, true));
        if let Some(codes) = &latents.codes {
            rows.push(fixed.network_row(table::CODES_NETWORK, codes)?);
        }
        rows.push(fixed.network_row(table::VECTORS_NETWORK, &latents.vectors)?);
        rows.push(fixed.row(table::SHUFFLED, &shuffled(&latents.vectors)?, true));
        rows.extend(fixed.floors.iter().cloned());
        Ok(Some(rows))
    }

    fn new(pairs: [Pairs; 2], model: &LaqModel, world: &World) -> anyhow::Result<Self> {
        let episodes = pairs.each_ref().map(|pairs| distinct(&pairs.episodes));
        let num_episodes = episodes.each_ref().map(Vec::len);
        let [fit, test] = &pairs;
        let is_varying_A = varies(&fit.actions_NA).logical_and(&varies(&test.actions_NA));
        let dims = is_varying_A.nonzero().squeeze_dim(1);
        let problem = if num_episodes[0] < 2 || dims.numel() == 0 {
            tracing::warn!(
                "no probes: they need two training episodes with actions that vary\nhint: set validation.probes.enabled=false"
            );
            None
        } else {
            let actions = [fit, test].map(|pairs| pairs.actions_NA.index_select(1, &dims));
            let [fit_NP, test_MP] = actions;
            Some(Fixed::new(&pairs, &episodes[0], Features { fit_NP, test_MP }.standardised(), model, world)?)
        };
        Ok(Self { pairs, num_episodes, problem })
    }
}

impl Fixed {
    fn new(
        pairs: &[Pairs; 2],
        fit_episodes: &[i64],
        target: Features,
        model: &LaqModel,
        world: &World,
    ) -> anyhow::Result<Self> {
        /// Principal components of a picture.
        const NUM_COMPONENTS: i64 = 64;
        let [fit, test] = pairs;
        let features =
            |of: fn(&Pairs) -> &Tensor| Features { fit_NP: of(fit).shallow_clone(), test_MP: of(test).shallow_clone() };
        let frame = features(|pairs| &pairs.earlier_NP).components(NUM_COMPONENTS);
        let difference = features(|pairs| &pairs.difference_NP).components(NUM_COMPONENTS);
        let states = match (&fit.states, &test.states) {
            (Some([fit_NP, later_NP]), Some([test_MP, later_MP])) => Some((
                Features { fit_NP: fit_NP.shallow_clone(), test_MP: test_MP.shallow_clone() },
                Features { fit_NP: later_NP - fit_NP, test_MP: later_MP - test_MP },
            )),
            _ => None,
        };
        let context = match &states {
            Some((state, _)) => frame.with(state),
            None => Features { fit_NP: frame.fit_NP.shallow_clone(), test_MP: frame.test_MP.shallow_clone() },
        };
        let mut fixed = Self {
            held_out_N: every_fourth(&fit.episodes, fit_episodes),
            resamples: Resamples::new(&test.episodes)?,
            context_R: Tensor::new(),
            target,
            context,
            floors: Vec::new(),
        };
        fixed.context_R = mean(&fixed.r2(&fixed.context));
        let random = Latents::of_random_weights(model, pairs, world)?;
        let mut floors = Vec::new();
        floors.extend(random.codes.as_ref().map(|codes| fixed.row(table::RANDOM_CODES, codes, true)));
        if let Some(codes) = &random.codes {
            floors.push(fixed.network_row(table::RANDOM_CODES_NETWORK, codes)?);
        }
        floors.push(fixed.row(table::RANDOM_VECTORS, &random.vectors, true));
        floors.extend(states.as_ref().map(|(state, _)| fixed.row(table::STATE, state, false)));
        floors.push(fixed.row(table::FRAME, &frame, false));
        floors.push(fixed.row(table::DIFFERENCE, &difference, true));
        let change = states.as_ref().map(|(_, change)| fixed.row(table::STATE_DIFFERENCE, change, true));
        floors.extend(change);
        fixed.floors = floors;
        Ok(fixed)
    }

    /// The row of a probe; with the partial R² if it reads more than the context.
    fn row(&self, (name, label): (&'static str, &'static str), features: &Features, is_more: bool) -> Row {
        let r2_RA = self.r2(features);
        let partial_R = is_more.then(|| {
            let both_R = mean(&self.r2(&self.context.with(features)));
            partial(&both_R, &self.context_R)
        });
        Row::new((name, label), &r2_RA, partial_R)
    }

    /// The row of a probe that is a small network.
    fn network_row(&self, name_and_label: (&'static str, &'static str), features: &Features) -> anyhow::Result<Row> {
        let predicted_MA = network(features, &self.target.fit_NP, &self.held_out_N)?;
        Ok(Row::new(name_and_label, &self.resamples.r2(&self.target.test_MP, &predicted_MA), None))
    }

    /// R² of a probe in each resample, `[R,A]`.
    fn r2(&self, features: &Features) -> Tensor {
        self.resamples.r2(&self.target.test_MP, &ridge(features, &self.target.fit_NP, &self.held_out_N))
    }
}

/// The features with the pairs of the fit in another order, always the same.
fn shuffled(features: &Features) -> anyhow::Result<Features> {
    const SEED: u64 = 0;
    let Features { fit_NP, test_MP } = features;
    let order = rng::seeded(SEED, || Tensor::randperm(fit_NP.size()[0], (Kind::Int64, Device::Cpu)))?;
    Ok(Features { fit_NP: fit_NP.index_select(0, &order), test_MP: test_MP.shallow_clone() })
}

/// Mean over the dimensions.
fn mean(r2_RA: &Tensor) -> Tensor {
    r2_RA.mean_dim([1].as_slice(), false, Kind::Double)
}

fn distinct(episodes: &[i64]) -> Vec<i64> {
    let mut distinct = episodes.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// Which pairs are of every fourth of the episodes `known` (of the last, where there are fewer), `bool [N]`.
fn every_fourth(episodes: &[i64], known: &[i64]) -> Tensor {
    let every = known.len().min(4);
    let is_fourth = |episode| known.binary_search(episode).is_ok_and(|position| position % every == every - 1);
    Tensor::from_slice(&episodes.iter().map(is_fourth).collect::<Vec<bool>>())
}
