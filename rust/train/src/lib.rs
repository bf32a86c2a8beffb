//! The training engine: task trait, loop, optimizer, schedule, checkpoint, resume.
#![allow(non_snake_case)]

mod device_batch;
mod task;

pub use device_batch::{DeviceBatch, DeviceImages, DeviceVectors};
pub use task::{LossOutput, RowReset, Task, Validation, ValidationContext};
