//! Stage 3: LeRobot's own trainer and evaluator, started from the configuration tree.
//!
//! | question | module |
//! |---|---|
//! | Which program and which Python? | [`installation`] |
//! | Is the policy plugin installed, and how is it installed? | [`plugin`] |
//! | What does a training start from, and where does it write? | [`start`] |
//! | Which files does it need? | [`preflight`] |
//! | What may a resumed training change? | [`resume`] |
//! | Which command trains, in how many processes? | [`launch`] |
//! | Which flags? | [`flags`] |
//! | Which environment variables? | [`environment`] |
//! | What does LIBERO need before its first import? | [`libero`] |
//! | Where are LeRobot's checkpoints? | [`checkpoints`] |
//! | What did its trainer log? | [`training_log`] |
//! | Who records the run on W&B? | [`wandb`] |
//! | What did its evaluator find? | [`evaluation`] |
//! | Why did it fail? | [`failure`] |

mod checkpoints;
mod environment;
mod evaluation;
mod failure;
mod flags;
mod inherit;
mod installation;
mod launch;
mod libero;
mod options;
mod passed_on;
mod plugin;
mod preflight;
mod prepare;
mod resume;
mod rollout;
mod start;
mod train;
mod training_log;
mod wandb;

pub(crate) use checkpoints::newest_policy;
pub(crate) use evaluation::{RESULTS, read_results};
pub(crate) use options::{RolloutOptions, TrainOptions};
pub(crate) use prepare::interpreter;
pub(crate) use rollout::rollout;
pub(crate) use train::train;
