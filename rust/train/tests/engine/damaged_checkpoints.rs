//! A checkpoint that is not what was written is refused, with a whole one as the way out.

use crate::common::{Numbers, Regression, alone, checkpoint, settings, train, train_until};
use hlrp_config::with_hint;
use hlrp_train::{Checkpoint, StopRequest, TrainError, Trainer, checkpoint::find};
use std::{fs, path::Path};

/// A run with checkpoints at 4, 8 and 12.
fn finished_run() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    train(settings(&run_dir, &["validation.check_interval=100"])).unwrap();
    (folder, run_dir)
}

fn error_of(path: &Path) -> String {
    with_hint(&Checkpoint::open(path).err().expect("the checkpoint is refused"))
}

#[test]
fn a_truncated_file_is_named() {
    let _alone = alone();
    let (_folder, run_dir) = finished_run();
    for file in ["model.safetensors", "optimizer.safetensors", "state.json", "config.yaml", "checkpoint.json"] {
        let path = checkpoint(&run_dir, 12).join(file);
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..content.len() / 2]).unwrap();
        let error = error_of(&run_dir);
        assert!(error.starts_with(&format!("{}: the checkpoint is damaged", path.display())), "{error}");
        let whole = checkpoint(&run_dir, 8);
        assert!(error.contains(&format!("{} is whole", whole.display())), "{error}");
        fs::write(&path, content).unwrap();
    }
    Checkpoint::open(&run_dir).unwrap();
}

#[test]
fn a_single_changed_byte_is_found() {
    let _alone = alone();
    let (_folder, run_dir) = finished_run();
    let path = checkpoint(&run_dir, 12).join("model.safetensors");
    let mut content = fs::read(&path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&path, content).unwrap();
    assert!(error_of(&run_dir).contains("sha256 differs"), "{}", error_of(&run_dir));
}

#[test]
fn the_hint_prefers_older_skips_damaged_neighbours_and_says_when_there_is_none() {
    let _alone = alone();
    let (_folder, run_dir) = finished_run();
    let remove = |step| fs::remove_file(checkpoint(&run_dir, step).join("optimizer.safetensors")).unwrap();
    remove(8);
    assert!(
        error_of(&checkpoint(&run_dir, 8)).contains("step-000004 is whole"),
        "{}",
        error_of(&checkpoint(&run_dir, 8))
    );
    remove(12);
    let whole = checkpoint(&run_dir, 4);
    assert!(error_of(&run_dir).contains(&format!("{} is whole", whole.display())), "{}", error_of(&run_dir));
    remove(4);
    assert!(error_of(&run_dir).contains("the file is missing"), "{}", error_of(&run_dir));
    assert!(error_of(&run_dir).contains("no other checkpoint of this run is whole"), "{}", error_of(&run_dir));
}

#[test]
fn a_refused_resume_changes_neither_model_nor_disk() {
    let _alone = alone();
    let (_folder, run_dir) = finished_run();
    fs::remove_file(checkpoint(&run_dir, 12).join("optimizer.safetensors")).unwrap();
    let resume = format!("training.resume_from_checkpoint={}", run_dir.display());
    let mut task = Regression::default();
    let before = task.param("first.weight").copy();
    let error = Trainer::new(settings(&run_dir, &[&resume]), &mut task, &mut Numbers::default()).err();
    assert!(matches!(error, Some(TrainError::Damaged { .. })));
    assert_eq!(task.param("first.weight"), before);
}

#[test]
fn another_format_version_is_refused() {
    let _alone = alone();
    let (_folder, run_dir) = finished_run();
    let path = checkpoint(&run_dir, 12).join("checkpoint.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"format_version\": 6", "\"format_version\": 99");
    fs::write(&path, text).unwrap();
    assert!(error_of(&run_dir).contains("checkpoint format 99, this program reads format 6"), "{}", error_of(&run_dir));
}

#[test]
fn a_path_that_is_no_checkpoint_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| find(path).unwrap_err().to_string();
    assert!(error(&folder.path().join("nowhere")).contains("it does not exist"));
    assert!(error(folder.path()).contains("it contains neither a checkpoint nor a run"));
    fs::create_dir(folder.path().join("checkpoints")).unwrap();
    assert!(error(folder.path()).contains("this run has not finished a checkpoint"));
    fs::write(folder.path().join("checkpoints/last"), "step-000008\n").unwrap();
    assert!(error(folder.path()).contains("the folder that last names is missing"), "{}", error(folder.path()));
    fs::write(folder.path().join("checkpoints/last"), "../elsewhere").unwrap();
    assert!(
        error(folder.path()).contains("'../elsewhere' is not the name of a checkpoint"),
        "{}",
        error(folder.path())
    );
}

/// Bytes that this thread has read.
fn num_bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn a_checkpoint_is_hashed_once_for_all_that_is_read_of_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    // Large enough for the tensors to outweigh the text files.
    let mut task = Regression::with_width(20_000);
    let short = settings(&run_dir, &["training.max_steps=1", "training.scheduler.warmup_steps=0"]);
    train_until(short, &StopRequest::default(), &mut task, &mut Numbers::default()).unwrap();
    let size = |file: &str| fs::metadata(checkpoint(&run_dir, 1).join(file)).unwrap().len();
    let (model, all) = (size("model.safetensors"), size("model.safetensors") + size("optimizer.safetensors"));

    let before = num_bytes_read();
    let opened = Checkpoint::open(&run_dir).unwrap();
    let hashed = num_bytes_read() - before;
    assert!((all..all + model / 2).contains(&hashed), "{hashed} bytes were read to hash {all}");
    let weights = opened.weights().unwrap();
    assert!(num_bytes_read() - before - hashed < model + model / 2, "reading the weights does not hash them again");
    assert_eq!(weights.len(), 7);
}

#[test]
fn a_file_outside_of_the_checkpoint_is_refused() {
    let _alone = alone();
    let (_folder, run_dir) = finished_run();
    let dir = checkpoint(&run_dir, 12);
    let manifest = dir.join("checkpoint.json");
    let recorded = fs::read_to_string(&manifest).unwrap();
    for name in ["/dev/zero", "../../../../../../etc/passwd", "../step-000008/model.safetensors"] {
        let entry = format!(r#""files": {{ "{name}": {{ "size": 0, "sha256": "" }},"#);
        fs::write(&manifest, recorded.replacen(r#""files": {"#, &entry, 1)).unwrap();
        let error = error_of(&dir);
        assert!(error.contains(&format!("`{name}` is not the name of a file in this folder")), "{error}");
    }
    fs::write(&manifest, &recorded).unwrap();
    for (file, target) in
        [("model.safetensors", "/dev/zero"), ("optimizer.safetensors", "/etc/passwd"), ("state.json", "/dev/zero")]
    {
        let kept = fs::read(dir.join(file)).unwrap();
        fs::remove_file(dir.join(file)).unwrap();
        std::os::unix::fs::symlink(target, dir.join(file)).unwrap();
        let error = error_of(&dir);
        assert!(error.contains("not a regular file") || error.contains("leads out of its folder"), "{error}");
        assert!(!error.contains(" bytes instead of "), "the size of another file is nobody's business: {error}");
        fs::remove_file(dir.join(file)).unwrap();
        fs::write(dir.join(file), kept).unwrap();
    }
    fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &manifest).unwrap();
    assert!(Checkpoint::open(&dir).is_err(), "it is not read for ever");
}
