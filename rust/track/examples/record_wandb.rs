//! Records made-up metrics on W&B through the sinks of a run, without a model: `record_wandb RUN_DIR FIRST_STEP NUM_STEPS [PAUSE_MS]`.
//!
//! The settings come from the `WANDB_*` variables. Prints the process's peak memory in KiB and the time in µs that the training
//! thread spends recording a step, as JSON.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // an example

use hlrp_track::{
    console,
    run::RunStatus,
    signals::{OnSignal, StopSignals},
    sinks::{NamedImage, SinkSetup, Sinks, wandb},
};
use image::{Rgb, RgbImage};
use serde_json::json;
use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let run_dir = PathBuf::from(&words[0]);
    let number = |index: usize| words.get(index).map_or(0, |word| word.parse::<u64>().unwrap());
    let (first, num_steps, pause) = (number(1), number(2), Duration::from_millis(number(3)));
    console::init(tracing::level_filters::LevelFilter::INFO, 0).unwrap();
    let stop = StopSignals::listen().unwrap();
    stop.on_signal(OnSignal::Save);
    let seconds = |name: &str, default: f64| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let options = json!({
        "project": std::env::var("WANDB_PROJECT").ok(),
        "stats_interval_s": 0.5,
        "upload_interval_s": seconds("UPLOAD_INTERVAL_S", 0.5),
        "heartbeat_interval_s": 1.0,
        "retry_min_s": 0.1,
        "retry_max_s": 1.0,
        "finish_timeout_s": seconds("FINISH_TIMEOUT_S", 20.0),
    });
    std::fs::create_dir_all(&run_dir).unwrap();
    let config = json!({ "experiment": { "name": "made up" }, "lr": 1e-4, "logging": { "wandb": options } });
    std::fs::write(run_dir.join("config.yaml"), config.to_string()).unwrap();
    let settings = wandb::Settings::resolve(&options).unwrap();
    let setup =
        SinkSetup { wandb: settings.as_ref(), stop: Some(&stop), ..SinkSetup::new(&run_dir, first, first + num_steps) };
    let mut sinks = Sinks::open(&setup, &json!({ "console": true, "png": true, "tensorboard": true })).unwrap();
    let mut recording = Duration::ZERO;
    let mut status = RunStatus::Finished;
    for step in first + 1..=first + num_steps {
        let started = Instant::now();
        let values = (0..10).map(|index| (format!("train/metric_{index}"), (step * (index + 1)) as f64 / 7.0));
        sinks.scalars(step, values.collect()).unwrap();
        if step % 1000 == 0 || step == 1 {
            let image = RgbImage::from_pixel(16, 8, Rgb([step as u8, 1, 2]));
            sinks.images(step, vec![NamedImage { name: "made_up".to_owned(), image }]).unwrap();
            sinks.scalars(step, vec![("val/loss".to_owned(), 1.0 / step as f64)]).unwrap();
        }
        recording += started.elapsed();
        if step % 1000 == 0 {
            sinks.flush().unwrap(); // as before a checkpoint: bounds what waits in the queue
            tracing::info!("step {step}");
        }
        if stop.is_requested() {
            status = RunStatus::Interrupted;
            break;
        }
        thread::sleep(pause);
    }
    sinks.finish(status).unwrap();
    let memory = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim_end_matches("kB").trim();
    let us_per_step = recording.as_secs_f64() * 1e6 / num_steps.max(1) as f64;
    println!("{}", json!({ "peak_kib": peak.parse::<u64>().unwrap(), "us_per_step": us_per_step }));
}
