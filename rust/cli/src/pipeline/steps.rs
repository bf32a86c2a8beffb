//! The steps of a pipeline and the overrides of their command lines.

use super::shared;
use hlrp_schema::{LabelKind, PipelineConfig, Stage, StageConfig, StepConfig, StudyConfig};
use std::collections::BTreeMap;
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
        source: LabelKind,
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

    /// What would differ if another step had its name.
    pub(super) fn settings(&self) -> Vec<String> {
        match &self.work {
            Work::Run { overrides, .. } => overrides.clone(),
            Work::Label { dataset, source } => {
                vec![format!("dataset={}", dataset.display()), format!("source={}", source.name())]
            }
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
        Step { name, key, work: Work::Run { stage: Some(stage), overrides }, inputs: Vec::new() }
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
    let is_per_seed = |name: &str| study.runs.get(name).is_some_and(|run| run.per_seed);
    let directory = |name: &str, seed: Option<u64>| match seed.filter(|_| is_per_seed(name)) {
        Some(seed) => format!("{name}_seed{seed}"),
        None => name.to_owned(),
    };
    let handovers = |inputs: &BTreeMap<String, String>, seed| {
        inputs.iter().map(|(key, from)| Handover { key: key.clone(), from: directory(from, seed) }).collect()
    };
    let run = |name: &str, seed: Option<u64>| {
        let run = &study.runs[name];
        let overrides = experiment_overrides(&run.experiment, &shared(seed.unwrap_or(seed_of_all)), &run.overrides);
        let key = format!("pipeline.study.runs.{name}");
        Step {
            name: directory(name, seed),
            key,
            work: Work::Run { stage: None, overrides },
            inputs: handovers(&run.inputs, seed),
        }
    };
    let once = order.iter().filter(|name| !is_per_seed(name)).map(|name| match study.labels.get(*name) {
        None => run(name, None),
        Some(labels) => Step {
            name: (*name).to_owned(),
            key: format!("pipeline.study.labels.{name}"),
            work: Work::Label { dataset: labels.dataset.clone(), source: labels.source },
            inputs: vec![Handover { key: "checkpoint".to_owned(), from: labels.checkpoint.clone() }],
        },
    });
    let per_seed = study.seeds.iter().flat_map(|seed| {
        let names = order.iter().filter(|name| is_per_seed(name));
        names.map(|name| run(name, Some(*seed))).collect::<Vec<_>>()
    });
    once.chain(per_seed).collect()
}

/// The directory of an arm's run of one seed.
pub(super) fn of_arm(study: &StudyConfig, run: &str, seed: u64) -> String {
    match study.runs.get(run) {
        Some(config) if config.per_seed => format!("{run}_seed{seed}"),
        _ => run.to_owned(),
    }
}
