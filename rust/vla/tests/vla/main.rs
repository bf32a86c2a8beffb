//! What stage 2 promises, one property per module.
#![allow(clippy::unwrap_used)] // a test that cannot go on should stop
#![allow(non_snake_case)] // shape suffixes

mod artifact;
mod averaged_weights;
mod chunk_graphs;
mod chunking;
mod expert_forms;
mod fixtures;
mod flow_matching;
mod freezing;
mod host_waits;
mod initialisation;
mod latent_heads;
mod losses;
mod masks;
mod normalization;
mod present_only;
mod sizes;
mod stage_1;
mod teacher;
