//! The steps of a pipeline and the overrides of their command lines.

use super::shared;
use clap::ValueEnum;
use hlrp_schema::policy::LabelSource;
use hlrp_schema::{PipelineConfig, Stage, StageConfig, StepConfig, StudyConfig};
use std::path::PathBuf;

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// Names its directory: `1_laq`.
    pub(super) name: String,
    /// The key of the configuration that describes it.
    pub(super) key: String,
    /// What it does.
    pub(super) work: Work,
    /// What would differ if another step had its name.
    pub(super) settings: Vec<String>,
    /// What it needs from the steps before it. Of a stage's step [`check`](super::check::check) finds out what else it needs.
    pub(super) inputs: Vec<Handover>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    /// Runs an experiment.
    Run {
        /// Its stage; of a step of a study, [`check`](super::check::check) finds it.
        stage: Option<Stage>,
        /// The command line, without what is handed over and where it writes.
        overrides: Vec<String>,
    },
    /// Writes labels into a copy of a dataset. Its one input is the checkpoint.
    Label {
        /// Folder of the dataset.
        dataset: PathBuf,
        /// Where labels come from.
        source: LabelSource,
    },
}

/// What a step is given by one before it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Handover {
    /// The key that names it.
    pub(super) key: String,
    /// The step that made it.
    pub(super) from: String,
}

impl Step {
    /// The subcommand of `hlrp` that does it.
    pub(super) fn command(&self) -> &'static str {
        self.stage().map_or("label", Stage::command)
    }

    /// Its stage, if it runs an experiment and that is known.
    pub(super) fn stage(&self) -> Option<Stage> {
        match self.work {
            Work::Run { stage, .. } => stage,
            Work::Label { .. } => None,
        }
    }
}

/// The steps in their order, as far as the pipeline's own configuration describes them; [`check`](super::check::check) completes them.
pub(super) fn of(config: &PipelineConfig, passed_on: &[String]) -> Vec<Step> {
    let pipeline = &config.pipeline;
    let shared = |seed: u64| [vec![format!("seed={seed}")], shared::overrides(&config.common(), passed_on)].concat();
    if let Some(study) = &pipeline.study {
        return of_study(study, config.seed, shared);
    }
    let shared = shared(config.seed);
    let single = [
        ("laq", Stage::Laq, &pipeline.laq),
        ("vla", Stage::Vla, &pipeline.vla),
        ("lerobot", Stage::LerobotTrain, &pipeline.lerobot),
    ];
    let single = single.into_iter().enumerate().filter_map(|(index, (name, stage, step))| {
        Some((format!("{}_{name}", index + 1), format!("pipeline.{name}"), stage, step.as_ref()?))
    });
    let rollouts = pipeline.rollouts.iter().map(|(name, step)| {
        (format!("4_rollout_{name}"), format!("pipeline.rollouts.{name}"), Stage::LerobotRollout, step)
    });
    let step = |(name, key, stage, StepConfig { experiment, overrides }): (_, _, _, &StepConfig)| {
        let overrides = experiment_overrides(experiment, &shared, overrides);
        let settings = overrides.clone();
        Step { name, key, work: Work::Run { stage: Some(stage), overrides }, settings, inputs: Vec::new() }
    };
    single.chain(rollouts).map(step).collect()
}

fn experiment_overrides(experiment: &str, shared: &[String], own: &[String]) -> Vec<String> {
    let experiment = [format!("experiment={experiment}")];
    experiment.iter().chain(shared).chain(own).cloned().collect()
}

/// What is made once, then everything of the first seed, of the second, and so on: a study that is stopped early compares all arms.
fn of_study(study: &StudyConfig, seed_of_all: u64, shared: impl Fn(u64) -> Vec<String>) -> Vec<Step> {
    // A checked section has an order.
    let order = study.order().unwrap_or_default();
    let step = |name: &str, seed: Option<u64>| {
        let handover = |key: &str, from: &str| Handover { key: key.to_owned(), from: study.directory(from, seed) };
        let (key, work, inputs) = match study.labels.get(name) {
            Some(labels) => {
                let work = Work::Label { dataset: labels.dataset.clone(), source: labels.source };
                (format!("pipeline.study.labels.{name}"), work, vec![handover("checkpoint", &labels.checkpoint)])
            }
            None => {
                let run = &study.runs[name];
                let shared = shared(seed.unwrap_or(seed_of_all));
                let overrides = experiment_overrides(&run.experiment, &shared, &run.overrides);
                let inputs = run.inputs.iter().map(|(key, from)| handover(key, from)).collect();
                (format!("pipeline.study.runs.{name}"), Work::Run { stage: None, overrides }, inputs)
            }
        };
        let own = match &work {
            Work::Run { overrides, .. } => overrides.clone(),
            Work::Label { dataset, source } => {
                vec![format!("dataset={}", dataset.display()), format!("source={}", name_of(*source))]
            }
        };
        let of_inputs = inputs.iter().map(|Handover { key, from }| format!("{key}=<{from}>"));
        let settings = own.into_iter().chain(of_inputs).collect();
        Step { name: study.directory(name, seed), key, work, settings, inputs }
    };
    let (per_seed, once): (Vec<&str>, Vec<&str>) = order.into_iter().partition(|name| study.is_per_seed(name));
    let of_seed = |seed: &u64| per_seed.iter().map(|name| step(name, Some(*seed))).collect::<Vec<_>>();
    once.iter().map(|name| step(name, None)).chain(study.seeds.iter().flat_map(of_seed)).collect()
}

/// As `hlrp label --source` has it.
pub(super) fn name_of(source: LabelSource) -> String {
    source.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
