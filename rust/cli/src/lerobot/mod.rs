//! Stage 3: LeRobot's own trainer and evaluator, started from the configuration tree.
//!
//! | question | module |
//! |---|---|
//! | Which program and which Python? | [`installation`] |
//! | Is the policy plugin there, and how does it get there? | [`plugin`] |
//! | What does a training start from? | [`plan`] |
//! | Which flags? | [`flags`] |
//! | Which environment variables? | [`environment`] |
//! | What does LIBERO need before its first import? | [`libero`] |
//! | Where are LeRobot's checkpoints? | [`checkpoints`] |
//! | What did its trainer log? | [`training_log`] |
//! | What did its evaluator find? | [`evaluation`] |
//! | Why did it fail? | [`exception`] |

mod checkpoints;
mod environment;
mod evaluation;
mod exception;
mod flags;
mod inherit;
mod installation;
mod libero;
mod options;
mod plan;
mod plugin;
mod prepare;
mod rollout;
mod train;
mod training_log;

pub(crate) use checkpoints::newest_policy;
pub(crate) use evaluation::{RESULTS, read_results};
pub(crate) use options::{RolloutOptions, TrainOptions};
pub(crate) use rollout::rollout;
pub(crate) use train::train;
