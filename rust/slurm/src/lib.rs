//! Jobs of a Slurm cluster: batch scripts, submission, the claim of a run, monitoring. Nothing here sees a tensor.
//!
//! | question | module |
//! |---|---|
//! | What is submitted? | [`plan`] |
//! | From which configuration tree does a job compose? | [`snapshot`] |
//! | As which script? | [`script`], quoted by [`shell`] |
//! | How does it get into the queue once, whatever happens? | [`submission`] |
//! | Which of several jobs trains? | [`claim`] |
//! | What does a job do before and after its program? | [`in_job`] |
//! | How did the jobs of a run end? | [`outcome`] |
//! | What does Slurm say? | [`client`] |

pub mod claim;
pub mod client;
mod env;
mod error;
pub mod in_job;
pub mod outcome;
pub mod plan;
pub mod script;
pub mod shell;
pub mod snapshot;
pub mod submission;

pub use error::{Result, SubmitError};
