//! Codes that carry nothing are named within 200 steps, each time with what is wrong.
#![allow(clippy::unwrap_used)] // a test may panic

#[path = "common/engine.rs"]
mod engine;

use engine::{batch, compose_mini};
use hlrp_laq::{CODEBOOK, LaqModel, LaqTask, Parts};
use hlrp_torch::{HostToDevice, World};
use hlrp_train::{DeviceBatch, Task};
use std::io::Write;
use std::sync::{Arc, Mutex};
use tch::{Device, no_grad};

/// Log lines in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs forward passes and gives what was logged at level WARN, with the step after which it appeared.
fn warnings(has_collapsed: bool) -> Vec<(u64, String)> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let (_, mut config) = compose_mini(std::path::Path::new("unused"));
        config.model.quantizer.nsvq.as_mut().unwrap().refresh_schedule = Vec::new();
        tch::manual_seed(1);
        let model = LaqModel::new(&config.model, Parts::All, Device::Cpu);
        let codebook = model
            .store()
            .parameters()
            .into_iter()
            .find(|(name, _)| *name == format!("{}.{}", LaqModel::QUANTIZER, CODEBOOK))
            .unwrap()
            .1;
        if has_collapsed {
            let _ = no_grad(|| codebook.narrow(0, 1, codebook.size()[0] - 1).fill_(1e3));
        } else {
            let _ = no_grad(|| codebook.shallow_clone().g_mul_scalar_(1e-2));
        }
        let mut task = LaqTask::new(model, &config, World::single());
        let transfer = HostToDevice::new(Device::Cpu).unwrap();
        let mut found = Vec::new();
        for step in 1..=200 {
            let batch = DeviceBatch::from_host(batch(step), &transfer).unwrap();
            no_grad(|| task.loss(&batch, step)).unwrap();
            let text = String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap();
            if !text.is_empty() {
                found.push((step, text));
            }
        }
        found
    })
}

#[test]
fn a_collapse_is_named_once_within_200_steps() {
    let warnings = warnings(true);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].1.contains("the codebook has collapsed") && warnings[0].1.contains("hint:"), "{warnings:?}");
}

#[test]
fn codes_that_are_in_use_and_that_no_decoder_has_learned_to_read_are_named_too() {
    let warnings = warnings(false);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let (step, text) = &warnings[0];
    assert!(*step == 200 && !text.contains("collapsed"), "{warnings:?}");
    assert!(text.contains("signal/noise") || text.contains("hardly use the codes"), "{warnings:?}");
}
