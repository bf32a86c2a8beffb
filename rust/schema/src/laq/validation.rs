//! Section `validation` of stage 1: how often, on which samples, and what is looked at.

use crate::conditions::Conditions;
use crate::rules::{Checked, at_least, require, section};
use crate::training::ValidationConfig;
use hlrp_config::{Check, Problem, ProblemKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Section `validation` of stage 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaqValidationConfig {
    /// Training steps between validations.
    pub check_interval: u64,
    /// Most batches of one validation; all when null.
    pub limit_batches: Option<usize>,
    /// Pairs in the reconstruction image.
    pub num_fixed_samples: usize,
    /// Whether a strategy that fails ends the run; otherwise the failure is reported and the run goes on.
    pub fail_on_error: bool,
    /// Subsets of the validation set by name.
    pub buckets: BTreeMap<String, BucketConfig>,
    /// What is looked at beyond losses and code use, by name.
    pub strategies: BTreeMap<String, StrategyConfig>,
    /// How well actions can be read from the latents.
    pub probes: ProbesConfig,
}

/// Section `validation.probes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbesConfig {
    /// Whether data with actions is probed.
    pub enabled: bool,
    /// Pairs of the training episodes, and as many of the held-out ones, that stay in memory; rounded up to whole batches.
    pub num_pairs: usize,
}

/// A subset of the validation set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// Conditions on a sample by what they are about; all must hold.
    pub filters: BTreeMap<String, Value>,
    /// Most samples; the first ones of the validation set that fit.
    pub max_samples: usize,
    /// Whether the names of its metrics and images end in `_holdout`.
    pub is_holdout: bool,
}

/// Defines the strategies: `StrategyConfig` with the keys that all share and one section for each kind, and `StrategyMethod`.
macro_rules! strategies {
    ($($(#[$doc:meta])* $section:ident: $Method:ident($Config:ident), { $($(#[$key_doc:meta])* $key:ident: $type:ty),* })*) => {
        /// One strategy: when it is due, on which samples, and the section of its kind.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct StrategyConfig {
            /// Whether it is in use.
            pub enabled: bool,
            /// Due at every n-th validation, from the first on, and at the last one of a run.
            pub every_n_validations: u64,
            /// With fewer samples it is left out.
            pub min_samples: usize,
            /// Buckets that it looks at, each by itself; the whole validation set when empty.
            pub buckets: Vec<String>,
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $section: Option<$Config>,)*
        }

        /// The kind of a strategy.
        #[derive(Debug, Clone, Copy)]
        pub enum StrategyMethod<'a> {
            $($(#[$doc])* $Method(&'a $Config),)*
        }

        impl StrategyConfig {
            /// Every kind that has a section, by name.
            fn sections(&self) -> [(&'static str, Option<StrategyMethod<'_>>); [$(stringify!($section)),*].len()] {
                [$((stringify!($section), self.$section.as_ref().map(StrategyMethod::$Method))),*]
            }
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $Config {
                $($(#[$key_doc])* pub $key: $type,)*
            }
        )*
    };
}

strategies! {
    /// Frame pairs beside what the decoders predict.
    reconstructions: Reconstructions(ReconstructionsConfig), {
        /// Further pairs, others at each validation.
        num_random_samples: usize,
        /// Pairs of the training episodes, the same at every validation.
        num_train_samples: usize
    }
    /// Decodes the latent of one pair on the first frame of another.
    latent_transfer: LatentTransfer(LatentTransferConfig), {
        /// Most pairs of samples.
        num_pairs: usize
    }
    /// How often each code is used.
    code_histogram: CodeHistogram(CodeHistogramConfig), {}
    /// How often each sequence of codes is used.
    sequence_histogram: SequenceHistogram(SequenceHistogramConfig), {
        /// Sequences with a bar of their own; all without names, on a logarithmic axis, when null.
        num_top: Option<usize>
    }
    /// The codebook's rows in the plane of their two main components.
    codebook_embedding: CodebookEmbedding(CodebookEmbeddingConfig), {}
    /// Frame pairs of the most frequent sequences.
    sequence_examples: SequenceExamples(SequenceExamplesConfig), {
        /// Sequences.
        num_sequences: usize,
        /// Pairs of each.
        num_examples: usize
    }
    /// Actions or states in the plane of their first two dimensions, coloured by code.
    scatter: Scatter(ScatterConfig), {
        /// What is drawn.
        of: ScatterOf,
        /// What a colour means.
        color: ScatterColor,
        /// Codes or sequences with a colour of their own; the rest is grey.
        num_top: usize,
        /// Most points.
        num_samples: usize
    }
    /// Flow of the decoder beside that of its teacher.
    flow: Flow(FlowStrategyConfig), {
        /// Pairs.
        num_samples: usize
    }
}

/// What a scatter plot shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScatterOf {
    /// The sum of the actions from frame t to frame t+k.
    Action,
    /// The state at frame t.
    State,
}

/// What a colour of a scatter plot means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScatterColor {
    /// The code of the first slot.
    FirstCode,
    /// The sequence of all slots.
    Sequence,
}

impl LaqValidationConfig {
    /// What the engine reads.
    pub fn shared(&self) -> ValidationConfig {
        ValidationConfig {
            check_interval: self.check_interval,
            limit_batches: self.limit_batches,
            num_fixed_samples: self.num_fixed_samples,
        }
    }
}

impl StrategyConfig {
    /// The kind of the strategy and its name.
    ///
    /// # Errors
    /// No kind has a section, or several have one.
    pub fn method(&self) -> Result<(&'static str, StrategyMethod<'_>), Problem> {
        let known = self.sections();
        let names = known.map(|(name, _)| name).join(", ");
        let chosen: Vec<_> = known.into_iter().filter_map(|(name, method)| Some((name, method?))).collect();
        if let [(name, method)] = chosen[..] {
            return Ok((name, method));
        }
        let message = match chosen.len() {
            0 => "the strategy has no section that says of which kind it is".to_owned(),
            _ => {
                format!(
                    "it is of several kinds: {}",
                    chosen.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                )
            }
        };
        let hint = format!("take a kind with +validation/strategy@validation.strategies.NAME=KIND: {names}");
        Err(Problem::of(ProblemKind::Value, message).hint(hint))
    }
}

impl Check for LaqValidationConfig {
    fn check(&self) -> Checked {
        self.shared().check()?;
        for (name, bucket) in &self.buckets {
            section("buckets", section(name, bucket.check()))?;
        }
        section("probes", at_least("num_pairs", self.probes.num_pairs, 1))?;
        let mut measured: Vec<(&str, Option<&str>, &str)> = Vec::new();
        for (name, strategy) in &self.strategies {
            let at = |checked: Checked| section("strategies", section(name, checked));
            at(strategy.check())?;
            for bucket in &strategy.buckets {
                let known = self.buckets.keys().cloned().collect::<Vec<_>>().join(", ");
                let hint = format!("name one of validation.buckets ({known}), or add it there");
                let message = format!("unknown bucket '{bucket}'");
                at(require(self.buckets.contains_key(bucket), "buckets", message, hint))?;
            }
            let (kind, method) = strategy.method().map_err(|problem| problem.inside(name).inside("strategies"))?;
            if !strategy.enabled || !method.has_metrics() {
                continue;
            }
            for bucket in strategy.places() {
                if let Some((.., other)) = measured.iter().find(|(known, place, _)| (*known, *place) == (kind, bucket))
                {
                    let message = format!("'{other}' is of the same kind and measures the same samples");
                    return at(require(false, "enabled", message, "disable one, or give it another bucket"));
                }
                measured.push((kind, bucket, name));
            }
        }
        Ok(())
    }
}

impl StrategyConfig {
    /// Its buckets; none stands for the whole validation set.
    pub fn places(&self) -> Vec<Option<&str>> {
        if self.buckets.is_empty() { vec![None] } else { self.buckets.iter().map(|name| Some(name.as_str())).collect() }
    }
}

impl StrategyMethod<'_> {
    /// Whether it has metrics, whose names are those of its kind.
    fn has_metrics(self) -> bool {
        matches!(self, Self::LatentTransfer(_) | Self::CodeHistogram(_))
    }
}

impl Check for BucketConfig {
    fn check(&self) -> Checked {
        at_least("max_samples", self.max_samples, 1)?;
        Conditions::on_samples(&self.filters).map(drop).map_err(|problem| problem.inside("filters"))
    }
}

impl Check for StrategyConfig {
    fn check(&self) -> Checked {
        at_least("every_n_validations", self.every_n_validations, 1)?;
        at_least("min_samples", self.min_samples, 0)?;
        match self.method()?.1 {
            StrategyMethod::Reconstructions(reconstructions) => {
                at_least("reconstructions.num_random_samples", reconstructions.num_random_samples, 0)?;
                at_least("reconstructions.num_train_samples", reconstructions.num_train_samples, 0)
            }
            StrategyMethod::LatentTransfer(transfer) => at_least("latent_transfer.num_pairs", transfer.num_pairs, 1),
            StrategyMethod::SequenceHistogram(histogram) => {
                at_least("sequence_histogram.num_top", histogram.num_top.unwrap_or(1), 1)
            }
            StrategyMethod::SequenceExamples(examples) => {
                at_least("sequence_examples.num_sequences", examples.num_sequences, 1)?;
                at_least("sequence_examples.num_examples", examples.num_examples, 1)
            }
            StrategyMethod::Scatter(scatter) => {
                at_least("scatter.num_top", scatter.num_top, 1)?;
                at_least("scatter.num_samples", scatter.num_samples, 1)
            }
            StrategyMethod::Flow(flow) => at_least("flow.num_samples", flow.num_samples, 1),
            StrategyMethod::CodeHistogram(_) | StrategyMethod::CodebookEmbedding(_) => Ok(()),
        }
    }
}
