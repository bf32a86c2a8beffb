//! Which values of the schema can be meant.

use super::*;
use crate::{Check, Problem};
use std::fmt::Display;

/// Grids of tokens per frame that the quantizer knows, with the numbers of codes that each can give.
const CODES_OF_GRID: [(i64, &[i64]); 2] = [(8, &[1, 2, 4]), (16, &[1, 4, 16, 64])];

pub(super) type Checked = Result<(), Problem>;

pub(super) fn require(good: bool, key: &str, message: impl Into<String>, hint: impl Into<String>) -> Checked {
    if good { Ok(()) } else { Err(Problem::new(key, message, hint)) }
}

pub(super) fn at_least<T: PartialOrd + Display>(key: &str, value: T, least: T) -> Checked {
    let hint = format!("set it to {least} or more");
    require(value >= least, key, format!("{value} is below {least}"), hint)
}

pub(super) fn not_negative(key: &str, value: f64) -> Checked {
    let good = value.is_finite() && value >= 0.0;
    require(good, key, format!("{value} is not a number from 0 upwards"), "set it to 0 or more")
}

pub(super) fn positive(key: &str, value: f64) -> Checked {
    let good = value.is_finite() && value > 0.0;
    require(good, key, format!("{value} is not a number above 0"), "set it above 0")
}

/// A share from 0 to 1; without 1 itself where `open`.
pub(super) fn share(key: &str, value: f64, open: bool) -> Checked {
    let good = (0.0..=1.0).contains(&value) && !(open && value >= 1.0);
    let range = if open { "from 0 to below 1" } else { "from 0 to 1" };
    require(good, key, format!("{value} is not a share {range}"), format!("set it {range}"))
}

pub(super) fn section(name: &str, checked: Checked) -> Checked {
    checked.map_err(|problem| problem.inside(name))
}

impl Check for LaqConfig {
    const STAGE: Option<Stage> = Some(Stage::Laq);

    fn check(&self) -> Checked {
        check_training(&self.run())?;
        section("model", self.model.check())?;
        let deltas = &self.data.request.image_deltas;
        require(
            deltas.len() == 2 && deltas[0] < deltas[1],
            "data.request.image_deltas",
            "a latent action is what changed between two frames, the earlier one first",
            "give two rising offsets, for example [0,5]",
        )
    }
}

/// What the configurations of all trainings share.
pub(super) fn check_training(run: &RunConfig<'_>) -> Checked {
    check_run(run.experiment, run.paths, run.logging, run.cluster)?;
    check_no_wandb(run.logging)?;
    if run.data.cache.enabled {
        run.cluster.refuse_outside("data.cache.dir", &run.data.cache.dir)?;
    }
    check_device(run.device)?;
    if let Some(num_threads) = run.num_threads {
        at_least("num_threads", num_threads, 1)?;
    }
    section("data", run.data.check())?;
    section("training", run.training.check())?;
    section("validation", run.validation.check())
}

/// Checks what every stage has in common: the name of a run, and where it writes.
pub(super) fn check_run(
    experiment: &ExperimentConfig,
    paths: &PathsConfig,
    logging: &LoggingConfig,
    cluster: &ClusterConfig,
) -> Checked {
    section("experiment", experiment.check())?;
    section("logging", not_negative("min_free_gb", logging.min_free_gb))?;
    section("cluster", cluster.check())?;
    cluster.refuse_outside("logging.run_dir", &logging.run_dir)?;
    cluster.refuse_outside("paths.cache_dir", &paths.cache_dir)
}

/// Stages 1 and 2 do not speak to W&B; LeRobot does, in stage 3.
fn check_no_wandb(logging: &LoggingConfig) -> Checked {
    require(
        !logging.use_wandb,
        "logging.use_wandb",
        "this stage does not log to Weights & Biases yet",
        "set it to false; metrics.jsonl and plots/ in the run directory hold the numbers and curves",
    )
}

/// Whether a text is `auto`, `cpu`, `cuda` or `cuda:N`.
fn is_device(device: &str) -> bool {
    let index = device.strip_prefix("cuda:").map(|index| index.parse::<usize>().is_ok());
    matches!(device, "auto" | "cpu" | "cuda") || index == Some(true)
}

fn check_device(device: &str) -> Checked {
    let hint = "set it to auto, cpu, cuda or cuda:N";
    require(is_device(device), "device", format!("'{device}' is no device"), hint)
}

/// LeRobot knows the devices of stages 1 and 2 and one more.
pub(super) fn check_policy_device(device: &str) -> Checked {
    let good = is_device(device) || device == "mps";
    let hint = "set it to auto, cpu, cuda, cuda:N or mps";
    require(good, "policy_device", format!("'{device}' is no device"), hint)
}

impl Check for ExperimentConfig {
    fn check(&self) -> Checked {
        let name = &self.name;
        let good = !name.is_empty() && !name.starts_with(['.', '-']) && !name.contains(['/', '\\', '\0', '\n', '=']);
        require(good, "name", format!("'{name}' cannot name a directory"), "use letters, digits, '_', '-' and '.'")
    }
}

impl Check for LaqModelConfig {
    fn check(&self) -> Checked {
        let counts = [
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("channels", self.channels),
            ("dim", self.dim),
            ("heads", self.heads),
            ("dim_head", self.dim_head),
            ("spatial_depth", self.spatial_depth),
            ("temporal_depth", self.temporal_depth),
            ("quant_dim", self.quant_dim),
            ("code_seq_len", self.code_seq_len),
        ];
        counts.into_iter().try_for_each(|(key, value)| at_least(key, value, 1))?;
        at_least("codebook_size", self.codebook_size, 2)?;
        self.check_grid()?;
        share("attn_dropout", self.attn_dropout, true)?;
        share("ff_dropout", self.ff_dropout, true)?;
        share("vq_discarding_threshold", self.vq_discarding_threshold, false)?;
        share("usage_decay", self.usage_decay, true)?;
        not_negative("collapse_perplexity", self.collapse_perplexity)?;
        require(
            self.codebook_replace_schedule.iter().all(|[interval, _]| *interval > 0),
            "codebook_replace_schedule",
            "an interval of 0 steps",
            "each entry is [interval, until] with an interval of 1 or more; [] = never",
        )?;
        section("token_decoder", self.token_decoder.check())?;
        section("pixel_decoder", self.pixel_decoder.check())?;
        section("aux_decoder", self.aux_decoder.check())?;
        require(
            self.token_decoder.enabled || self.pixel_decoder.enabled,
            "pixel_decoder.enabled",
            "no decoder trains the codes",
            "enable token_decoder or pixel_decoder; aux_decoder sends no gradient to the codes",
        )
    }
}

impl LaqModelConfig {
    fn check_grid(&self) -> Checked {
        let (image, patch) = (self.image_size, self.patch_size);
        let grid = if image % patch == 0 { image / patch } else { 0 };
        let Some((_, codes)) = CODES_OF_GRID.into_iter().find(|(known, _)| *known == grid) else {
            let message = format!("{image} pixels in patches of {patch} do not make 8 or 16 patches a side");
            let hint = format!("set it to {} or {}", 8 * patch, 16 * patch);
            return Err(Problem::new("image_size", message, hint));
        };
        let known: Vec<String> = codes.iter().map(i64::to_string).collect();
        require(
            codes.contains(&self.code_seq_len),
            "code_seq_len",
            format!("{} codes cannot come from {grid}x{grid} patches", self.code_seq_len),
            format!("with this image_size and patch_size use {}", known.join(", ")),
        )
    }
}

impl Check for DecoderConfig {
    fn check(&self) -> Checked {
        at_least("depth", self.depth, 1)?;
        not_negative("loss_weight", self.loss_weight)
    }
}

impl Check for DataConfig {
    fn check(&self) -> Checked {
        let hint = "choose a data set with data=NAME, or add one below data.sources";
        require(!self.sources.is_empty(), "sources", "no source of data", hint)?;
        for (name, source) in &self.sources {
            section("sources", section(name, source.check()))?;
        }
        section("request", self.request.check())?;
        section("loader", self.loader.check())
    }
}

impl Check for SourceConfig {
    fn check(&self) -> Checked {
        require(
            !self.cameras.is_empty(),
            "cameras",
            "no camera",
            "give role: feature key, as in primary: observation.image",
        )?;
        let Some(episodes) = &self.episodes else { return Ok(()) };
        require(!episodes.is_empty(), "episodes", "an empty list of episodes", "give indices, or null for all")?;
        let num_episodes = episodes.len() as u64;
        require(
            self.num_val_episodes < num_episodes,
            "num_val_episodes",
            format!("{} of {num_episodes} episodes leave none for training", self.num_val_episodes),
            "hold out fewer episodes",
        )
    }
}

impl Check for RequestConfig {
    fn check(&self) -> Checked {
        let lists = [
            ("image_deltas", &self.image_deltas),
            ("state_deltas", &self.state_deltas),
            ("action_deltas", &self.action_deltas),
        ];
        for (key, deltas) in lists {
            let whole = self.unit != DeltaUnit::Frames || deltas.iter().all(|delta| delta.fract() == 0.0);
            require(deltas.iter().all(|delta| delta.is_finite()), key, "an offset that is no number", "give numbers")?;
            require(whole, key, "a part of a frame", "give whole numbers, or set data.request.unit=seconds")?;
        }
        require(!self.image_deltas.is_empty(), "image_deltas", "no image", "give at least [0]")
    }
}

impl Check for LoaderConfig {
    fn check(&self) -> Checked {
        at_least("batch_size", self.batch_size, 1)?;
        at_least("anchors_per_clip", self.anchors_per_clip, 1)?;
        at_least("num_workers", self.num_workers, 1)?;
        at_least("prefetch_batches", self.prefetch_batches, 1)?;
        at_least("memory_budget_mb", self.memory_budget_mb, 1)?;
        at_least("table_cache_mb", self.table_cache_mb, 1)?;
        at_least("max_open_decoders", self.max_open_decoders, 1)
    }
}

impl Check for TrainingConfig {
    fn check(&self) -> Checked {
        at_least("max_steps", self.max_steps, 1)?;
        at_least("log_every_n_steps", self.log_every_n_steps, 1)?;
        section("optimizer", self.optimizer.check())?;
        section("scheduler", self.scheduler.check(self.max_steps))?;
        if let Some(clip_norm) = self.gradient.clip_norm {
            section("gradient", positive("clip_norm", clip_norm))?;
        }
        section("gradient", at_least("accumulate_steps", self.gradient.accumulate_steps, 1))?;
        section("ema", share("decay", self.ema.decay, true))?;
        section("ema", at_least("update_every_n_steps", self.ema.update_every_n_steps, 1))?;
        section("checkpoint", self.checkpoint.check())?;
        require(
            self.resume_from_checkpoint.is_none() || self.load_weights_from.is_none(),
            "load_weights_from",
            "a run either continues (resume_from_checkpoint) or starts from weights (load_weights_from)",
            "set one of the two to null",
        )
    }
}

impl Check for OptimizerConfig {
    fn check(&self) -> Checked {
        positive("lr", self.lr)?;
        self.betas.iter().try_for_each(|&beta| share("betas", beta, true))?;
        positive("eps", self.eps)?;
        not_negative("weight_decay", self.weight_decay)
    }
}

impl SchedulerConfig {
    fn check(&self, max_steps: u64) -> Checked {
        not_negative("warmup_start_lr", self.warmup_start_lr)?;
        not_negative("min_lr", self.min_lr)?;
        require(
            self.kind == SchedulerType::None || self.warmup_steps < max_steps,
            "warmup_steps",
            format!("a warm-up of {} steps does not fit into a run of {max_steps}", self.warmup_steps),
            "set it below training.max_steps",
        )
    }
}

impl Check for CheckpointConfig {
    fn check(&self) -> Checked {
        at_least("every_n_steps", self.every_n_steps, 1)?;
        if let Some(keep_last) = self.keep_last {
            at_least("keep_last", keep_last, 1)?;
        }
        require(!self.monitor.is_empty(), "monitor", "no metric", "name one, for example val/loss")
    }
}

impl Check for ValidationConfig {
    fn check(&self) -> Checked {
        at_least("check_interval", self.check_interval, 1)?;
        self.limit_batches.map_or(Ok(()), |limit| at_least("limit_batches", limit, 1))
    }
}
