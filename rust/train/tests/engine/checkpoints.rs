//! When checkpoints are written, what they hold, and which ones stay.

use crate::common::{
    Numbers, Regression, alone, assert_same_run, checkpoint, description, metrics, settings, tensors, train,
    train_until,
};
use hlrp_train::{Checkpoint, StopRequest, TrainError, Trainer, checkpoint::load_weights};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn run_in(folder: &Path, name: &str, words: &[&str]) -> PathBuf {
    let run_dir = folder.join(name);
    train(settings(&run_dir, words)).unwrap();
    run_dir
}

fn names(run_dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(run_dir.join("checkpoints")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn pointer(run_dir: &Path, name: &str) -> String {
    fs::read_to_string(run_dir.join("checkpoints").join(name)).unwrap().trim().to_owned()
}

fn val_loss(run_dir: &Path) -> Vec<(u64, f64)> {
    let value = |(step, values): (u64, Vec<(String, u64)>)| {
        values.into_iter().find(|(name, _)| name == "val/loss").map(|(_, bits)| (step, f64::from_bits(bits)))
    };
    metrics(run_dir).into_iter().filter_map(value).collect()
}

#[test]
fn at_the_interval_at_a_new_best_and_at_the_end() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = run_in(folder.path(), "run", &[]);
    let validations = val_loss(&run_dir);
    assert_eq!(validations.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [5, 10, 12]);
    let mut expected: BTreeSet<u64> = BTreeSet::from([4, 8, 12]);
    let mut best = (0, f64::INFINITY);
    for (step, loss) in validations {
        if loss < best.1 {
            best = (step, loss);
            expected.insert(step);
        }
    }
    let mut expected: BTreeSet<String> = expected.into_iter().map(|step| format!("step-{step:06}")).collect();
    expected.extend(["last".to_owned(), "best".to_owned()]);
    assert_eq!(names(&run_dir), expected);
    assert_eq!(pointer(&run_dir, "last"), "step-000012");
    assert_eq!(pointer(&run_dir, "best"), format!("step-{:06}", best.0));
}

#[test]
fn the_score_is_that_of_its_own_weights() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = run_in(folder.path(), "run", &[]);
    let score = |step| Checkpoint::open(&checkpoint(&run_dir, step)).unwrap().manifest().score.clone();
    assert_eq!(score(4), None, "no validation ran at this step");
    let (step, loss) = val_loss(&run_dir)[2];
    let score = score(step).unwrap();
    assert_eq!((score.metric.as_str(), score.value), ("val/loss", loss));
}

#[test]
fn a_score_that_is_not_a_number_is_never_the_best_and_leaves_a_whole_checkpoint() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for (name, score) in [("nan", f64::NAN), ("infinite", f64::NEG_INFINITY)] {
        let run_dir = folder.path().join(name);
        let mut task = Regression::default().scoring(score);
        train_until(settings(&run_dir, &[]), &StopRequest::default(), &mut task, &mut Numbers::default()).unwrap();
        assert!(!names(&run_dir).contains("best"));
        assert_eq!(Checkpoint::open(&run_dir).unwrap().state().best, None);
    }
}

#[test]
fn the_manifest_says_what_the_model_is_and_how_it_was_computed() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = run_in(folder.path(), "run", &[]);
    let checkpoint = Checkpoint::open(&run_dir).unwrap();
    let manifest = checkpoint.manifest();
    assert_eq!(manifest.task, hlrp_schema::TaskDescription::Laq(description(16)));
    assert_eq!(
        (manifest.device.as_str(), manifest.num_threads, manifest.precision),
        ("cpu", 1, hlrp_schema::Precision::Float32)
    );
    let [decayed, rest] = &manifest.optimizer_groups;
    assert_eq!((decayed.weight_decay, decayed.names.join(" ")), (0.01, "first.weight second.weight codes".to_owned()));
    assert_eq!((rest.weight_decay, rest.names.join(" ")), (0.0, "first.bias second.bias unused".to_owned()));
    let files: Vec<&str> = manifest.files.keys().map(String::as_str).collect();
    assert_eq!(files, ["config.yaml", "model.safetensors", "optimizer.safetensors", "state.json"]);
    let state = checkpoint.state();
    assert_eq!((state.step, state.position.epoch, state.position.sample), (12, 1, 12 * 4 - 30));
    assert!(checkpoint.config_yaml().unwrap().contains("max_steps: 12"));
    assert_eq!(tensors(&run_dir, 12, "model.safetensors")["num_calls"].int64_value(&[]), 12);
}

#[test]
fn keep_last_removes_only_this_runs_older_checkpoints_and_never_the_best() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    // The loss falls, so with `mode=max` the first validation stays the best.
    let words =
        ["training.checkpoint.every_n_steps=2", "training.checkpoint.keep_last=2", "training.checkpoint.mode=max"];
    let checkpoints = run_dir.join("checkpoints");
    let mut task = Regression::default().calling(move |step| {
        if step == 3 {
            fs::create_dir(checkpoints.join("step-000001")).unwrap(); // a user's folder, no checkpoint
            fs::write(checkpoints.join("notes.txt"), "keep me").unwrap();
        }
    });
    train_until(settings(&run_dir, &words), &StopRequest::default(), &mut task, &mut Numbers::default()).unwrap();
    let best = pointer(&run_dir, "best");
    let kept = ["last", "best", "notes.txt", "step-000001", "step-000010", "step-000012", best.as_str()];
    assert_eq!(names(&run_dir), kept.into_iter().map(str::to_owned).collect());
    assert!(best != "step-000010" && best != "step-000012", "the test needs an old best");
}

#[test]
fn a_full_disk_is_refused_before_anything_is_written() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let settings = settings(&run_dir, &["logging.min_free_gb=1e9"]);
    let error = Trainer::new(settings, &mut Regression::default(), &mut Numbers::default()).err().unwrap();
    assert!(hlrp_config::with_hint(&error).contains("logging.min_free_gb"), "{error}");
    assert!(!run_dir.exists());
}

#[test]
fn a_disk_that_fills_up_stops_the_run_and_leaves_the_last_checkpoint() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, run_dir) = (run_in(folder.path(), "whole", &[]), folder.path().join("run"));
    // A file in the place of the folder in which the next checkpoint is prepared: the write fails half-way.
    let checkpoints = run_dir.join("checkpoints");
    let mut task = Regression::default().calling(move |step| {
        if step == 8 {
            fs::write(checkpoints.join(".step-000008.partial"), "in the way").unwrap();
        }
    });
    let result = train_until(settings(&run_dir, &[]), &StopRequest::default(), &mut task, &mut Numbers::default());
    assert!(matches!(result, Err(TrainError::Track(_))), "{result:?}");
    assert_eq!(pointer(&run_dir, "last"), "step-000005", "the best so far, of the validation at step 5");
    fs::remove_file(run_dir.join("checkpoints/.step-000008.partial")).unwrap();
    let resume = format!("training.resume_from_checkpoint={}", run_dir.display());
    train(settings(&run_dir, &[&resume])).unwrap();
    assert_same_run(&run_dir, &whole, 12);
}

#[test]
fn the_training_goes_on_while_a_checkpoint_is_written_and_does_not_change_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let words = ["validation.check_interval=100"];
    let (whole, run_dir) = (run_in(folder.path(), "whole", &words), folder.path().join("run"));
    // The disk is asked for its quota before a write: this one does not answer from step 3 to step 7.
    let [slow, asked] = ["slow", "asked"].map(|name| folder.path().join(name));
    let script = format!("touch {}; while [ -e {} ]; do sleep 0.01; done; echo - -", asked.display(), slow.display());
    let mut settings = settings(&run_dir, &words);
    settings.disk.quota_command = Some(["sh", "-c", &script].map(str::to_owned).to_vec());
    let own = checkpoint(&run_dir, 4);
    let mut task = Regression::default().calling(move |step| match step {
        3 => {
            fs::remove_file(&asked).unwrap();
            fs::write(&slow, "").unwrap();
        }
        7 => {
            while !asked.exists() {
                std::thread::yield_now();
            }
            assert!(!own.exists(), "the loop has waited for the checkpoint of step 4");
            fs::remove_file(&slow).unwrap();
        }
        _ => {}
    });
    train_until(settings, &StopRequest::default(), &mut task, &mut Numbers::default()).unwrap();
    for step in [4, 8, 12] {
        assert_same_run(&run_dir, &whole, step);
        assert_eq!(Checkpoint::open(&checkpoint(&run_dir, step)).unwrap().state().step, step);
    }
}

#[test]
fn weights_alone_start_a_new_run_or_are_refused() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = run_in(folder.path(), "run", &[]);
    let trained = tensors(&run_dir, 12, "model.safetensors");
    for path in [run_dir.clone(), checkpoint(&run_dir, 12), checkpoint(&run_dir, 12).join("model.safetensors")] {
        let mut task = Regression::default();
        let words = format!("training.load_weights_from={}", path.display());
        let fresh = settings(&folder.path().join("fresh"), &[&words]);
        let mut data = Numbers::default();
        let trainer = Trainer::new(fresh, &mut task, &mut data).unwrap();
        assert_eq!(trainer.step(), 0);
        drop(trainer);
        assert_eq!(task.param("first.weight").detach(), trained["first.weight"]);
    }
    let wide = hlrp_train::Task::parameters(&Regression::with_width(8));
    let error = load_weights(&run_dir, &wide).unwrap_err().to_string();
    assert!(error.contains("run") && error.contains("num_calls"), "{error}");
}
