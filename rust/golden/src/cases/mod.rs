//! Which part of the project computes which case.

mod image_preprocess;
mod laq_forward;
mod laq_train;
mod nsvq;
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

/// The first part of a case's name, whether the case is one that exists here, and what runs it.
type Row = (&'static str, fn(&Case) -> bool, Runner);

const TABLE: [Row; 9] = [
    ("laq_train", is_pixel_model, laq_train::run),
    ("laq_", is_pixel_model, laq_forward::run),
    ("nsvq_", |_| true, nsvq::run),
    ("schedules", |_| true, schedules::run),
    ("smolvlm", |_| true, smolvlm::run),
    ("smolvla_expert", |_| true, smolvla_expert::run),
    ("vla_pooled", |_| true, vla_pooled::run),
    ("tokenizer", |_| true, tokenizer::run),
    ("image_preprocess", |_| true, image_preprocess::run),
];

/// What runs `case`; none when no part of the project computes it.
pub(crate) fn runner(case: &Case) -> Option<Runner> {
    let matches = |(prefix, exists, _): &&Row| case.name.starts_with(prefix) && exists(case);
    TABLE.iter().find(matches).map(|(_, _, run)| *run)
}

/// Whether a case of the latent action model needs neither DINOv3 nor optical flow.
fn is_pixel_model(case: &Case) -> bool {
    let model = &case.config["model"];
    model["use_dinov3_encoder"] != true && model["flow"].is_null()
}
