//! Which settings and data may change when a run resumes.

use crate::{
    checkpoint::{Checkpoint, Manifest, RunState, STATE, find},
    data::SourceRecord,
    error::Result,
    trainer::BATCH_SIZE,
};
use hlrp_config::{Composed, Node, Problem, Value, from_resolved};
use hlrp_schema::TaskDescription;
use std::{collections::BTreeMap, fmt, path::Path};

/// Names the checkpoint to resume.
pub(crate) const RESUME_KEY: &str = "training.resume_from_checkpoint";

/// What a stage needs of the checkpoint that will be resumed, before it builds its model and data.
pub struct Resumed {
    /// What was trained.
    pub task: TaskDescription,
    /// The data, by source; none in a checkpoint of an older version.
    pub sources: Option<BTreeMap<String, SourceRecord>>,
    /// Step, and a digest of what the checkpoint contains.
    pub(crate) identity: String,
}

impl Resumed {
    /// Reads the small files of the checkpoint of `path`.
    ///
    /// # Errors
    /// No checkpoint, or a damaged one.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let dir = find(path)?;
        let manifest = Manifest::read(&dir)?;
        manifest.verify_file(&dir, STATE)?;
        let sources = RunState::read(&dir, manifest.written_in)?.sources;
        Ok(Self { identity: manifest.identity(), task: manifest.task, sources })
    }

    /// The episodes that the run holds out, by source: they stay held out even if the dataset has changed.
    pub fn held_out(&self) -> BTreeMap<String, Vec<u64>> {
        let sources = self.sources.iter().flatten();
        sources.map(|(name, record)| (name.clone(), record.held_out.clone())).collect()
    }
}

/// One problem for each source whose data differs from what the checkpoint saw.
pub(crate) fn changed_data(checkpoint: &Checkpoint, current: &BTreeMap<String, SourceRecord>) -> Vec<Problem> {
    let Some(saved) = &checkpoint.state().sources else {
        if !current.is_empty() {
            let dir = checkpoint.dir().display();
            tracing::warn!(
                "{dir} was written by an older version, which did not record the data: changes of it go unnoticed"
            );
        }
        return Vec::new();
    };
    let changed = |(name, was): (&String, &SourceRecord)| {
        let is = current.get(name).filter(|is| is.fingerprint != was.fingerprint)?;
        let difference = if is.num_episodes == was.num_episodes {
            "its files differ from those that the checkpoint saw".to_owned()
        } else {
            format!("it has {} episodes; it had {} when the checkpoint was written", is.num_episodes, was.num_episodes)
        };
        let message = format!("the dataset of source `{name}` has changed: {difference}");
        let hint = "restore the dataset, start a new run from the weights (training.load_weights_from), or accept the change with \
                    --accept-changed-data";
        Some(Problem::new(format!("data.sources.{name}.root"), message, hint))
    };
    saved.iter().filter_map(changed).collect()
}

/// Refuses to resume a checkpoint of another stage, whose settings would all differ.
///
/// # Errors
/// [`Problem`] with both stages.
pub(crate) fn ensure_same_stage(checkpoint: &Checkpoint, current: &TaskDescription) -> Result<()> {
    let (was, is) = (checkpoint.manifest().task.stage().name(), current.stage().name());
    refuse(checkpoint, if was == is { Vec::new() } else { vec![format!("experiment.stage was {was}, is {is}")] })
}

/// Refuses to resume `checkpoint` with another model, although its configuration reads the same.
///
/// # Errors
/// [`Problem`] with every part of the description that differs.
pub(crate) fn ensure_same_model(checkpoint: &Checkpoint, current: &TaskDescription) -> Result<()> {
    refuse(checkpoint, checkpoint.manifest().task.differences(current))
}

/// Refuses `checkpoint` if there are differences.
fn refuse(checkpoint: &Checkpoint, differences: Vec<String>) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let lines: String = differences.iter().map(|difference| format!("\n  {difference}")).collect();
    let message = format!("{} belongs to a run with other settings:{lines}", checkpoint.dir().display());
    let hint = "set these keys as they were, or start a new run from its weights with training.load_weights_from";
    Err(Problem::new(RESUME_KEY, message, hint).into())
}

/// Keys that change neither what is computed nor in which order; `*` is any one name, and a key includes all keys below it.
const FREE: &[&str] = &[
    "data.cache",
    "data.loader.max_bad_samples",
    "data.loader.max_open_decoders",
    "data.loader.memory_budget_mb",
    "data.loader.num_workers",
    "data.loader.prefetch_batches",
    "data.loader.stream_cache_mb",
    "data.loader.table_cache_mb",
    "data.sources.*.repo_id",
    "data.sources.*.revision",
    "data.sources.*.root",
    "data.sources.*.streaming",
    "data.sources.*.tolerance_s",
    "cluster",
    "device",
    "experiment",
    "logging",
    "model.decoders.flow.cache",
    "num_processes",
    "num_threads",
    "paths",
    "policy.model.arch.*.smolvla_checkpoint",
    "policy.model.backbone.hub_cache",
    "policy.model.backbone.vlm_model_name",
    "policy.teacher.checkpoint",
    "sweep",
    "training.checkpoint.every_n_steps",
    "training.checkpoint.keep_last",
    "training.cuda_graph",
    "training.distributed",
    "training.load_weights_from",
    "training.log_every_n_steps",
    "training.resume_from_checkpoint",
    "validation",
];
/// Free as well when the learning rate does not depend on it.
const MAX_STEPS: &str = "training.max_steps";
const SCHEDULE: &str = "training.scheduler.type";
/// Divides the samples of a step, with the batch size and the number of processes.
const ACCUMULATE_STEPS: &str = "training.gradient.accumulate_steps";
/// Keys on which the value of a validation metric depends.
const MEASURED: [&str; 2] = ["validation.limit_batches", "validation.num_flow_samples"];

/// Refuses to resume `checkpoint` with a configuration that would compute something else on `num_processes` processes. The samples of a step
/// may be divided otherwise, with a warning: a model may average over a batch. Returns whether validation metrics measure something else than
/// before, so that scores are not comparable.
///
/// # Errors
/// [`Problem`] with every key that differs and both of its values.
pub(crate) fn ensure_same_run(checkpoint: &Checkpoint, config: &Composed, num_processes: usize) -> Result<bool> {
    let saved_tree = from_resolved(&hlrp_schema::PROJECT, &checkpoint.config(), &[])?;
    let (saved, current) = (leaves(saved_tree.tree()), leaves(config.tree()));
    let num_former = checkpoint.state().rng.len().max(1);
    let constant_rate = current.get(SCHEDULE).is_some_and(|value| value.text == "none");
    let mut differences = Vec::new();
    let mut validates_otherwise = false;
    for key in saved.keys().chain(current.keys().filter(|key| !saved.contains_key(*key))) {
        let is_decided_together = key == BATCH_SIZE || key == ACCUMULATE_STEPS;
        let may_change = is_free(key) || is_decided_together || (key == MAX_STEPS && constant_rate);
        let both = [&saved, &current].map(|side| side.get(key));
        // A source that is written inline may leave out what is null.
        let [was, is] = both.map(|leaf| leaf.filter(|leaf| leaf.text != NULL));
        let differs = was != is;
        validates_otherwise |= differs && MEASURED.contains(&key.as_str());
        if differs && !may_change {
            let [was, is] = both.map(|leaf| leaf.map_or("absent", |leaf| leaf.text.as_str()));
            differences.push(format!("{key} was {was}, is {is}"));
        }
    }
    refuse(checkpoint, differences)?;
    let divisions = [(&saved_tree, num_former), (config, num_processes)].map(|(config, num)| Division::of(config, num));
    refuse_other_steps(checkpoint, divisions, &current)?;
    // Validations compare the samples of a batch, and round what they measure up to whole batches.
    let [was, is] = divisions.map(Division::batch_of_all);
    Ok(validates_otherwise || was != is)
}

/// How the samples of an optimizer step are divided.
#[derive(Clone, Copy, PartialEq)]
struct Division {
    batch_size: u64,
    num_processes: u64,
    accumulate_steps: u64,
}

impl Division {
    fn of(config: &Composed, num_processes: usize) -> Self {
        let number = |key: &str| match config.tree().get(key).map(|node| &node.value) {
            Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        let (batch_size, accumulate_steps) = (number(BATCH_SIZE), number(ACCUMULATE_STEPS));
        Self { batch_size, num_processes: num_processes as u64, accumulate_steps }
    }

    /// Samples of a batch of all processes.
    fn batch_of_all(self) -> u64 {
        self.batch_size.saturating_mul(self.num_processes)
    }

    /// Samples of a step.
    fn step(self) -> u64 {
        self.batch_of_all().saturating_mul(self.accumulate_steps)
    }
}

impl fmt::Display for Division {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch_size, num_processes, accumulate_steps } = self;
        let processes = if *num_processes == 1 { "process" } else { "processes" };
        write!(f, "{BATCH_SIZE}={batch_size} on {num_processes} {processes}, {ACCUMULATE_STEPS}={accumulate_steps}")
    }
}

/// A key, its value with which nothing depends on the division of a step, and what does with any other value.
type Dependence = (&'static str, &'static str, &'static str);
/// On the batch of all processes.
const ON_BATCH: [Dependence; 1] =
    [("data.loader.anchors_per_clip", "1", "the order of the samples depends on the batch")];
/// On the samples of a step.
const ON_STEP: [Dependence; 2] = [
    ("training.scheduler.lr_base_size", NULL, "the learning rate depends on the samples of a step"),
    ("model.label_head.weight", "0", "labelled pairs are counted in steps of one size"),
];

/// Refuses steps of other samples: in another order, or of another number. The size of a step may change only with the number of processes, and
/// only where nothing depends on it.
fn refuse_other_steps(
    checkpoint: &Checkpoint,
    [former, current]: [Division; 2],
    settings: &BTreeMap<String, Leaf>,
) -> Result<()> {
    let is_same_batch = former.batch_of_all() == current.batch_of_all();
    if is_same_batch && former.accumulate_steps == current.accumulate_steps {
        return Ok(());
    }
    let (was, is) = (former.step(), current.step());
    let is_only_other_number = former == Division { num_processes: former.num_processes, ..current };
    let of_batch = ON_BATCH.into_iter().filter(|_| !is_same_batch);
    let of_step = ON_STEP.into_iter().filter(|_| was != is);
    let is_set = |(key, usual, _): &Dependence| settings.get(*key).is_some_and(|leaf| leaf.text != *usual);
    let reason = of_batch.chain(of_step).find(is_set);
    if reason.is_some() || (was != is && !is_only_other_number) {
        let because = reason.map_or_else(String::new, |(key, _, what)| format!("; {key} is set, so {what}"));
        let differs = format!("a step had {was} samples ({former}), it would have {is} ({current}){because}");
        return refuse(checkpoint, vec![differs]);
    }
    if was == is {
        let (was, is) = (former.batch_of_all(), current.batch_of_all());
        tracing::warn!(
            "the run continues with the same samples in a step; what is averaged over a batch of all processes is averaged over {is} \
             samples now, it was {was}"
        );
    } else {
        tracing::warn!("the run continues with {is} samples in a step; it had {was}");
    }
    Ok(())
}

/// What the processes of one run have in common: every setting on which their exchanges depend, one `key = value` per line.
pub(crate) fn shared_settings(config: &Composed) -> String {
    let of_loop = |key: &str| key.starts_with("training.") || key.starts_with("validation.");
    let shared = leaves(config.tree()).into_iter().filter(|(key, _)| of_loop(key) || !is_free(key));
    shared.map(|(key, leaf)| format!("{key} = {}\n", leaf.text)).collect()
}

fn is_free(key: &str) -> bool {
    FREE.iter().any(|free| {
        let (mut names, mut pattern) = (key.split('.'), free.split('.'));
        pattern.all(|wanted| names.next().is_some_and(|name| wanted == "*" || wanted == name))
    })
}

/// How nothing reads.
const NULL: &str = "null";

/// A value as a person reads it; numbers compare as numbers.
struct Leaf {
    text: String,
    number: Option<f64>,
}

impl PartialEq for Leaf {
    fn eq(&self, other: &Self) -> bool {
        match (self.number, other.number) {
            (Some(a), Some(b)) => a == b,
            _ => self.text == other.text,
        }
    }
}

/// Values by full key; a list is one value.
fn leaves(root: &Node) -> BTreeMap<String, Leaf> {
    fn visit(path: &str, node: &Node, out: &mut BTreeMap<String, Leaf>) {
        match &node.value {
            Value::Map(map) => {
                for (name, child) in map {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    visit(&path, child, out);
                }
            }
            _ => {
                let value = node.redacted(path).value;
                out.insert(path.to_owned(), Leaf { text: text(&value), number: number(&value) });
            }
        }
    }
    let mut out = BTreeMap::new();
    visit("", root, &mut out);
    out
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(int) => Some(*int as f64),
        Value::Float(float) => Some(*float),
        _ => None,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => NULL.to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(_) | Value::Float(_) => number(value).unwrap_or_default().to_string(),
        Value::Str(text) => text.clone(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(|item| text(&item.value)).collect::<Vec<_>>().join(", "))
        }
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, child)| format!("{key}: {}", text(&child.value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}
