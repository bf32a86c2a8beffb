//! The tree of `hlrp analyze-laq`: what the codes of a trained model say.

use super::{FlowTeacherKind, LaqModelConfig, unreadable};
use crate::data::DataConfig;
use crate::rules::{Checked, at_least, not_negative, require, section, within};
use crate::run::{check_common, stage_config};
use crate::stage::StageConfig;
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

stage_config! {
    /// Everything that `hlrp analyze-laq` reads.
    LaqAnalysisConfig of LaqAnalysis {
        /// Checkpoint folder or run directory of `hlrp train-laq`.
        checkpoint: Option<PathBuf>,
        /// The data; the spacing of the pairs is that of the checkpoint.
        data: DataConfig,
        /// What is analyzed.
        analysis: AnalysisConfig,
    }
}

/// Section `analysis`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained beside its default in config/analysis/laq.yaml
pub struct AnalysisConfig {
    pub samples_per_dataset: usize,
    pub max_batches: usize,
    pub visual_subset_size: usize,
    pub inspected_tokens_k: usize,
    pub top_k_sequences: usize,
    pub top_k_heatmap: usize,
    pub top_k_transfer: usize,
    pub top_k_transfer_tokens: usize,
    pub top_k_token_reports: usize,
    pub token_report_examples: usize,
    pub token_report_targets_per_dataset: usize,
    pub examples_per_sequence: usize,
    pub min_samples_per_dataset: usize,
    pub min_compass_samples: usize,
    pub min_dataset_samples: usize,
    pub static_eps: f64,
    pub num_action_bins: usize,
    pub num_probe_pairs: usize,
    pub flow: AnalysisFlowConfig,
    pub run: AnalysisRunConfig,
}

/// Section `analysis.flow`: how the motion between two frames is estimated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // as above
pub struct AnalysisFlowConfig {
    pub teacher: FlowTeacherKind,
    pub teacher_weights: Option<PathBuf>,
    pub teacher_num_updates: i64,
    pub teacher_chunk_size: i64,
}

/// Section `analysis.run`: which analyses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // as above
pub struct AnalysisRunConfig {
    pub analysis_1: bool,
    pub analysis_2: bool,
    pub analysis_3: bool,
    pub analysis_4: bool,
    pub analysis_5: bool,
    pub analysis_6: bool,
    pub analysis_7: bool,
    pub analysis_8: bool,
    pub decoder_dependence: bool,
    pub action_information: bool,
    pub probes: bool,
}

impl AnalysisFlowConfig {
    /// Refuses images of `model` that the teacher cannot read.
    ///
    /// # Errors
    /// [`Problem`] with the teacher.
    pub fn check_images(&self, model: &LaqModelConfig) -> Checked {
        let hint = "set it to lucas_kanade, which reads all images";
        require(self.teacher.reads(model), "analysis.flow.teacher", unreadable(model), hint)
    }
}

impl Check for LaqAnalysisConfig {
    fn check(&self) -> Checked {
        check_common(&self.common())?;
        section("data", self.data.check())?;
        section("analysis", self.analysis.check())?;
        require(
            self.checkpoint.is_some(),
            "checkpoint",
            "null, but there is nothing to analyze without one",
            "give a run directory or checkpoint folder of `hlrp train-laq`",
        )
        .map_err(Problem::unset)
    }
}

impl Check for AnalysisConfig {
    fn check(&self) -> Checked {
        let counts = [
            ("samples_per_dataset", self.samples_per_dataset),
            ("max_batches", self.max_batches),
            ("visual_subset_size", self.visual_subset_size),
            ("inspected_tokens_k", self.inspected_tokens_k),
            ("top_k_sequences", self.top_k_sequences),
            ("top_k_heatmap", self.top_k_heatmap),
            ("top_k_transfer", self.top_k_transfer),
            ("top_k_transfer_tokens", self.top_k_transfer_tokens),
            ("top_k_token_reports", self.top_k_token_reports),
            ("token_report_examples", self.token_report_examples),
            ("token_report_targets_per_dataset", self.token_report_targets_per_dataset),
            ("examples_per_sequence", self.examples_per_sequence),
            ("min_samples_per_dataset", self.min_samples_per_dataset),
            ("min_compass_samples", self.min_compass_samples),
            ("num_probe_pairs", self.num_probe_pairs),
        ];
        counts.into_iter().try_for_each(|(key, count)| at_least(key, count, 1))?;
        at_least("min_dataset_samples", self.min_dataset_samples, 0)?;
        within("num_action_bins", self.num_action_bins, 2, 1 << 10)?;
        not_negative("static_eps", self.static_eps)?;
        let flow = &self.flow;
        at_least("flow.teacher_num_updates", flow.teacher_num_updates, 1)?;
        at_least("flow.teacher_chunk_size", flow.teacher_chunk_size, 1)?;
        require(
            !flow.teacher.is_raft() || flow.teacher_weights.is_some(),
            "flow.teacher_weights",
            "the teacher has no weights",
            "give a safetensors file with torchvision's weights (docs/laq.md says how to make one), or set teacher to lucas_kanade",
        )
    }
}
