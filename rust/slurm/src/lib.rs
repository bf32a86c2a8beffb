//! Jobs of a Slurm cluster: batch scripts, submission, the claim of a run, monitoring. Nothing here sees a tensor.

pub mod client;
pub mod outcome;
pub mod shell;
