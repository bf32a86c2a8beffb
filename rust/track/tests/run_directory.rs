//! A run directory belongs to one run and one process, and records how it ended.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use hlrp_config::with_hint;
use hlrp_track::{
    RunDir, TrackError,
    run::{Manifest, RunInfo, RunStatus},
};
use std::{collections::BTreeMap, fs, path::Path};

fn info<'a>(config_yaml: &'a str, overrides: &'a [String]) -> RunInfo<'a> {
    RunInfo {
        description: "a test",
        overrides,
        versions: BTreeMap::from([("hlrp".into(), "0.1.0".into())]),
        num_threads: 2,
        repository: Path::new(env!("CARGO_MANIFEST_DIR")),
        ..RunInfo::new("hlrp-train-laq", "laq_tiny", config_yaml)
    }
}

#[test]
fn a_new_run_lays_out_its_directory() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("runs/one");
    let overrides = ["training.max_steps=10".to_owned(), "paths.root=\"a b\"".to_owned()];
    let run = RunDir::create(&path, &info("seed: 42\n", &overrides)).unwrap();
    assert_eq!(fs::read_to_string(path.join("config.yaml")).unwrap(), "seed: 42\n");
    assert_eq!(
        fs::read_to_string(path.join("overrides.yaml")).unwrap(),
        "- \"training.max_steps=10\"\n- \"paths.root=\\\"a b\\\"\"\n"
    );
    assert!(run.checkpoints().is_dir() && run.plots().is_dir());
    assert_eq!(run.validation(80).unwrap(), path.join("validation/step-000080"));
    assert!(path.join("validation/step-000080").is_dir());

    let session = &Manifest::read(&path).unwrap().sessions[0];
    assert_eq!(session.status, RunStatus::Running);
    assert_eq!(session.overrides, overrides);
    assert!(!session.host.is_empty() && !session.command.is_empty());
    run.finish(RunStatus::Finished).unwrap();
    let session = &Manifest::read(&path).unwrap().sessions[0];
    assert_eq!(session.status, RunStatus::Finished);
    assert!(session.ended_at.is_some());
}

#[test]
fn the_manifest_is_flat_where_people_look() {
    let parent = tempfile::tempdir().unwrap();
    let run = RunDir::create(parent.path(), &info("", &[])).unwrap();
    run.finish(RunStatus::Failed { reason: "loss is NaN at step 12".into(), exit_code: Some(1) }).unwrap();
    let text = fs::read_to_string(parent.path().join("run.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest["experiment"], "laq_tiny");
    assert_eq!(manifest["sessions"][0]["status"], "failed");
    assert_eq!(manifest["sessions"][0]["reason"], "loss is NaN at step 12");
}

#[test]
fn a_directory_with_something_in_it_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let error = RunDir::create(dir.path(), &info("", &[])).unwrap_err();
    let TrackError::Problem(problem) = &error else { panic!("{error}") };
    assert_eq!(problem.key(), Some("logging.run_dir"));
    assert!(error.to_string().contains("it contains thesis.tex"), "{error}");
    assert!(with_hint(&error).contains("\nhint: continue that run with --resume"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");
}

#[test]
fn what_a_submission_and_its_jobs_write_may_be_there_first() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["4711.out", "4711.err"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    fs::create_dir_all(dir.path().join("submit/claims/1")).unwrap();
    RunDir::create(dir.path(), &info("", &[])).unwrap();
}

#[test]
fn a_run_that_was_killed_before_its_manifest_never_began() {
    let dir = tempfile::tempdir().unwrap();
    drop(RunDir::create(dir.path(), &info("seed: 1\n", &[])).unwrap());
    fs::remove_file(dir.path().join("run.json")).unwrap();
    fs::write(dir.path().join(".run.json.a1b2.partial"), "{").unwrap();
    drop(RunDir::create(dir.path(), &info("seed: 2\n", &[])).unwrap());
    assert_eq!(fs::read_to_string(dir.path().join("config.yaml")).unwrap(), "seed: 2\n");

    fs::remove_file(dir.path().join("run.json")).unwrap();
    fs::write(dir.path().join("checkpoints/last"), "step-000080\n").unwrap();
    let error = RunDir::create(dir.path(), &info("", &[])).unwrap_err();
    assert!(error.to_string().contains("(it contains checkpoints)"), "{error}");
}

#[test]
fn a_config_file_alone_is_somebodys() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.yaml"), "mine: true\n").unwrap();
    let error = RunDir::create(dir.path(), &info("", &[])).unwrap_err();
    assert!(error.to_string().contains("(it contains config.yaml)"), "{error}");
    assert_eq!(fs::read_to_string(dir.path().join("config.yaml")).unwrap(), "mine: true\n");
}

#[test]
fn two_processes_cannot_write_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path(), &info("", &[])).unwrap();
    let error = RunDir::resume(dir.path(), 0, &info("", &[])).unwrap_err();
    let own_id = format!("process {}", std::process::id());
    assert!(matches!(&error, TrackError::RunLocked { owner, .. } if owner.starts_with(&own_id)), "{error}");
    drop(run);
    RunDir::resume(dir.path(), 0, &info("", &[])).unwrap();
}

#[test]
fn a_continued_run_keeps_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let killed = RunDir::create(dir.path(), &info("seed: 1\n", &[])).unwrap();
    // A killed process releases its lock and runs no destructor; a copy of the manifest from before the drop stands for that.
    let manifest = fs::read(dir.path().join("run.json")).unwrap();
    drop(killed);
    fs::write(dir.path().join("run.json"), manifest).unwrap();

    let changed = ["seed=2".to_owned()];
    let run = RunDir::resume(dir.path(), 80, &info("seed: 2\n", &changed)).unwrap();
    run.finish(RunStatus::Interrupted).unwrap();
    RunDir::resume(dir.path(), 90, &info("seed: 2\n", &[])).unwrap().finish(RunStatus::Finished).unwrap();

    let sessions = Manifest::read(dir.path()).unwrap().sessions;
    let told: Vec<_> = sessions.iter().map(|session| (session.start_step, session.status.clone())).collect();
    assert_eq!(told, [(0, RunStatus::Killed), (80, RunStatus::Interrupted), (90, RunStatus::Finished)]);
    assert_eq!(sessions[1].overrides, changed);
    assert_eq!(fs::read_to_string(dir.path().join("config.yaml")).unwrap(), "seed: 2\n");
    assert_eq!(fs::read_to_string(dir.path().join("config.superseded-1.yaml")).unwrap(), "seed: 1\n");
    assert!(!dir.path().join("config.superseded-2.yaml").exists());
}

#[test]
fn a_run_that_is_dropped_is_recorded_as_failed() {
    let dir = tempfile::tempdir().unwrap();
    drop(RunDir::create(dir.path(), &info("", &[])).unwrap());
    assert!(matches!(Manifest::read(dir.path()).unwrap().sessions[0].status, RunStatus::Failed { .. }));
}

#[test]
fn what_is_not_a_run_cannot_be_continued() {
    let dir = tempfile::tempdir().unwrap();
    let error = RunDir::resume(dir.path(), 0, &info("", &[])).unwrap_err();
    assert!(error.to_string().contains("is not a run directory: run.json is missing"), "{error}");
    drop(RunDir::create(dir.path(), &info("", &[])).unwrap());
    fs::write(dir.path().join("run.json"), "{\"format\": 1,").unwrap();
    let error = RunDir::resume(dir.path(), 0, &info("", &[])).unwrap_err();
    assert!(matches!(error, TrackError::Malformed { .. }), "{error}");
}

#[test]
fn the_commit_of_the_code_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@t"];
        let command =
            std::process::Command::new("git").arg("-C").arg(dir.path()).args(identity).args(arguments).output();
        assert!(command.unwrap().status.success(), "git {arguments:?}");
    };
    let run_dir = tempfile::tempdir().unwrap();
    let session = |name: &str| {
        let run = RunDir::create(&run_dir.path().join(name), &RunInfo { repository: dir.path(), ..info("", &[]) });
        run.unwrap().manifest().sessions[0].clone()
    };
    assert_eq!(session("no-repository").git, None);
    git(&["init", "-q"]);
    fs::write(dir.path().join("a"), "1").unwrap();
    git(&["add", "a"]);
    git(&["commit", "-q", "-m", "a"]);
    let clean = session("clean").git.unwrap();
    assert!(clean.commit.len() == 40 && !clean.dirty, "{clean:?}");
    fs::write(dir.path().join("a"), "2").unwrap();
    assert!(session("changed").git.unwrap().dirty);
}

#[test]
fn secrets_are_not_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = ["wandb.api_key=planted-one".to_owned(), "data.state_key=s".to_owned()];
    let info = RunInfo { description: "with https://me:planted-two@host/", ..info("seed: 1\n", &overrides) };
    let run = RunDir::create(&dir.path().join("run"), &info).unwrap();
    run.finish(RunStatus::Failed { reason: "HF_TOKEN=planted-three".into(), exit_code: Some(1) }).unwrap();
    let manifest = Manifest::read(&dir.path().join("run")).unwrap();
    assert_eq!(manifest.sessions[0].overrides, ["wandb.api_key=***", "data.state_key=s"]);
    for file in ["run.json", "overrides.yaml", "config.yaml"] {
        let text = fs::read_to_string(dir.path().join("run").join(file)).unwrap();
        assert!(!text.contains("planted"), "{file}: {text}");
    }
}
