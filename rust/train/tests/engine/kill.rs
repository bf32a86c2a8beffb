//! Kills and signals on a real process: what is on the disk is always whole, and the run continues to the same bits.

use crate::common::{Numbers, Regression, alone, assert_same_run, settings, settings_from, train_until};
use hlrp_track::exit_code::INTERRUPTED;
use hlrp_train::{Checkpoint, Outcome, StopRequest};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Names the run directory to the child process.
const RUN_DIR: &str = "HLRP_TEST_RUN_DIR";
/// Makes step 5 of the child process never end.
const HANG: &str = "HLRP_TEST_HANG";
/// A checkpoint every second step, of a model that takes a while to write.
const WORDS: &[&str] =
    &["training.max_steps=20", "training.checkpoint.every_n_steps=2", "validation.check_interval=100"];
const WIDTH: i64 = 200_000;

/// Not a test of its own: the process that the other tests start and kill.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    let Some(run_dir) = env::var_os(RUN_DIR).map(PathBuf::from) else { return };
    let _alone = alone();
    let resume = format!("training.resume_from_checkpoint={}", run_dir.display());
    let mut words: Vec<&str> = Vec::new();
    if run_dir.join("checkpoints/last").exists() {
        words.push(&resume);
    }
    let stop = StopRequest::listen().unwrap();
    let mut task = Regression::with_width(WIDTH);
    if env::var_os(HANG).is_some() {
        task = task.calling(|step| {
            if step == 5 {
                sleep(Duration::from_secs(600));
            }
        });
    }
    let outcome =
        train_until(settings_from(&config(&run_dir), &run_dir, &words), &stop, &mut task, &mut Numbers::default());
    std::process::exit(match outcome.unwrap() {
        Outcome::Finished(_) => 0,
        Outcome::Interrupted(_) => INTERRUPTED.into(),
    });
}

/// The configuration of all processes of a test, written once: the tree may be edited while they come and go.
fn config(run_dir: &Path) -> PathBuf {
    let file = run_dir.with_file_name("config.yaml");
    if !file.exists() {
        fs::write(&file, settings(run_dir, WORDS).config.to_yaml()).unwrap();
    }
    file
}

/// What the newest child process on `run_dir` wrote to its standard error.
fn log(run_dir: &Path) -> PathBuf {
    run_dir.with_extension("log")
}

/// Lets a child process run to its end, which must be a good one.
fn finish(run_dir: &Path) {
    let status = start(run_dir).wait().unwrap();
    assert!(status.success(), "{status}: {}", fs::read_to_string(log(run_dir)).unwrap());
}

fn command(run_dir: &Path) -> Command {
    config(run_dir);
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "kill::child", "--ignored", "--nocapture"]).env(RUN_DIR, run_dir);
    command.stdout(Stdio::null()).stderr(fs::File::create(log(run_dir)).unwrap());
    command
}

fn start(run_dir: &Path) -> Child {
    command(run_dir).spawn().unwrap()
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until `condition` holds; fails if the child ends before.
fn wait_for(child: &mut Child, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be interrupted");
        assert!(start.elapsed() < Duration::from_secs(120), "nothing happened");
        sleep(Duration::from_micros(200));
    }
}

fn whole_run(folder: &Path) -> PathBuf {
    let run_dir = folder.join("whole");
    let mut task = Regression::with_width(WIDTH);
    let _ = train_until(
        settings_from(&config(&run_dir), &run_dir, &[]),
        &StopRequest::default(),
        &mut task,
        &mut Numbers::default(),
    )
    .unwrap();
    run_dir
}

#[test]
fn kill_9_in_the_middle_of_a_checkpoint_write() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    for step in [2, 6, 12] {
        let partial = run_dir.join(format!("checkpoints/.step-{step:06}.partial/model.safetensors"));
        let mut child = start(&run_dir);
        wait_for(&mut child, || partial.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(partial.exists(), "the kill came too late to hit the write of step {step}");
        assert!(!run_dir.join(format!("checkpoints/step-{step:06}")).exists());
        if step == 2 {
            fs::remove_dir_all(&run_dir).unwrap(); // no checkpoint yet: the run starts anew
        } else {
            assert_eq!(Checkpoint::open(&run_dir).unwrap().state().step, step - 2);
        }
    }
    finish(&run_dir);
    assert_same_run(&run_dir, &whole_run(folder.path()), 20);
}

#[test]
fn signals_finish_the_step_write_a_checkpoint_and_exit_with_their_own_code() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    for (signal, after) in [("-TERM", 2), ("-INT", 6), ("-USR1", 10)] {
        let mut child = start(&run_dir);
        wait_for(&mut child, || run_dir.join(format!("checkpoints/step-{after:06}")).exists());
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(i32::from(INTERRUPTED)), "{signal}");
        assert!(Checkpoint::open(&run_dir).unwrap().state().step > after);
    }
    finish(&run_dir);
    assert_same_run(&run_dir, &whole_run(folder.path()), 20);
}

#[test]
fn a_second_sigint_ends_the_process_at_once() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let mut child = command(&run_dir).env(HANG, "1").spawn().unwrap();
    wait_for(&mut child, || {
        fs::read_to_string(run_dir.join("checkpoints/last")).is_ok_and(|name| name == "step-000004\n")
    });
    send(&child, "-INT");
    sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "the first signal waits for the end of the step");
    send(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(Checkpoint::open(&run_dir).unwrap().state().step, 4);
}
