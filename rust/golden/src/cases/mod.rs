//! Which part of the project computes which case.

mod dinov3;
mod image_preprocess;
mod laq_forward;
mod laq_train;
mod nsvq;
mod quantizers;
mod raft;
mod schedules;
mod smolvla_expert;
mod smolvlm;
mod tokenizer;
mod vla;
mod vla_pooled;

use crate::case::Case;
use crate::compare::Comparison;

/// Compares everything that a case holds.
pub(crate) type Runner = fn(&Case, &mut Comparison) -> anyhow::Result<()>;

/// The first part of a case's name, and what runs it.
type Row = (&'static str, Runner);

const TABLE: [Row; 13] = [
    ("laq_train", laq_train::run),
    ("laq_", laq_forward::run),
    ("dinov3", dinov3::run),
    ("raft_", raft::run),
    ("nsvq_", nsvq::run),
    ("ema_vq", quantizers::run),
    ("fsq", quantizers::run),
    ("schedules", schedules::run),
    ("smolvlm", smolvlm::run),
    ("smolvla_expert", smolvla_expert::run),
    ("vla_pooled", vla_pooled::run),
    ("tokenizer", tokenizer::run),
    ("image_preprocess", image_preprocess::run),
];

/// What runs `case`; none when no part of the project computes it.
pub(crate) fn runner(case: &Case) -> Option<Runner> {
    TABLE.iter().find(|(prefix, _)| case.name.starts_with(prefix)).map(|(_, run)| *run)
}
