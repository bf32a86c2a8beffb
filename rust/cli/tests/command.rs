//! The real program: it starts its siblings in its own place, and says what to do when something is missing.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Held while a program is written and while one is started: a child of another test that is just being started holds our open handle, and a
/// program that is open for writing cannot begin.
static PROGRAMS: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(command: &mut Command) -> Child {
    let _alone = alone();
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A folder with a copy of `hlrp` and shell scripts in the place of its siblings.
struct Installed {
    dir: tempfile::TempDir,
}

impl Installed {
    fn new(siblings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        {
            let _alone = alone();
            fs::copy(env!("CARGO_BIN_EXE_hlrp"), dir.path().join("hlrp")).unwrap();
        }
        for (name, script) in siblings {
            write_script(dir.path(), name, script);
        }
        Self { dir }
    }

    fn hlrp(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.dir.path().join("hlrp"));
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        command.args(arguments).current_dir(root).env("PATH", "/usr/bin:/bin").env_remove("SLURM_JOB_ID");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        start(&mut self.hlrp(arguments)).wait_with_output().unwrap()
    }
}

fn write_script(dir: &Path, name: &str, script: &str) {
    let _alone = alone();
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Prints its process id and each argument on a line of its own.
const ECHO: &str = "echo $$; for argument; do echo \"$argument\"; done; exit 75";

#[test]
fn everything_after_the_subcommand_reaches_the_sibling_as_it_is() {
    let installed = Installed::new(&[("hlrp-train-laq", ECHO), ("hlrp-train-vla", ECHO), ("hlrp-data", ECHO)]);
    for subcommand in ["train-laq", "train-vla", "data"] {
        let arguments = ["--help", "a.b=1", "~c", "--resume", "runs/x y", "--", "-q", "--version"];
        let output = installed.run(&[&[subcommand], &arguments[..]].concat());
        let lines: Vec<&str> = text(&output.stdout).lines().skip(1).collect();
        assert_eq!(lines, arguments, "{subcommand}");
        assert_eq!(output.status.code(), Some(75), "the exit code is the sibling's");
    }
}

#[test]
fn the_sibling_takes_the_place_of_the_process() {
    let installed = Installed::new(&[("hlrp-data", ECHO)]);
    let child = start(&mut installed.hlrp(&["data"]));
    let id = child.id().to_string();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout).lines().next(), Some(id.as_str()), "signals to hlrp reach the sibling");
}

#[test]
fn siblings_are_also_found_on_the_path_and_beside_the_target_of_a_link() {
    let installed = Installed::new(&[]);
    let elsewhere = tempfile::tempdir().unwrap();
    write_script(elsewhere.path(), "hlrp-data", "echo from the path");
    let output = start(installed.hlrp(&["data"]).env("PATH", elsewhere.path())).wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "from the path\n");

    let installed = Installed::new(&[("hlrp-data", "echo beside")]);
    let link = elsewhere.path().join("hlrp");
    std::os::unix::fs::symlink(installed.dir.path().join("hlrp"), &link).unwrap();
    let output = start(Command::new(link).arg0("hlrp").arg("data")).wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "beside\n");
}

#[test]
fn a_missing_sibling_is_an_error_with_the_command_that_builds_it() {
    let output = Installed::new(&[]).run(&["train-laq", "experiment=laq_tiny"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: hlrp-train-laq is neither in "), "{stderr}");
    assert!(stderr.ends_with("\nhint: build it with `cargo build --release -p hlrp-laq`\n"), "{stderr}");
}

#[test]
fn help_teaches_and_a_typo_gets_a_suggestion() {
    let installed = Installed::new(&[]);
    let output = installed.run(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for part in [
        "train-laq",
        "train-vla",
        "train-lerobot",
        "rollout-lerobot",
        "pipeline",
        "data",
        "doctor",
        "Examples:",
        "experiment=laq_tiny",
        "--resume",
    ] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
    let output = installed.run(&["train-lqa"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: ") && stderr.contains("'train-laq'"), "{stderr}");
    assert_eq!(installed.run(&[]).status.code(), Some(2), "nothing to do is a mistake");
}

const TRAIN_LAQ: &str = r#"echo '{"version":"0.1.0","libtorch":"2.11.0","cuda_available":false,"num_cuda_devices":0,"cuda_note":"no driver"}'"#;
const DATA: &str =
    r#"echo '{"version":"0.1.0","ffmpeg":"5.1.6","decoders":{"av1":"libdav1d","h264":"h264","hevc":null}}'"#;

#[test]
fn doctor_reports_the_machine_and_asks_the_siblings() {
    let installed = Installed::new(&[("hlrp-train-laq", TRAIN_LAQ), ("hlrp-data", DATA)]);
    let output = installed.run(&["doctor", "logging.min_free_gb=0"]);
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}");
    for part in [
        "directory",
        "host",
        "cpu",
        "memory",
        "gpu",
        "libtorch   2.11.0, CPU only: no driver",
        "ffmpeg     5.1.6, decodes av1 (libdav1d), h264, but not hevc",
        "config     config",
        "runs",
        "cache",
        "GiB free",
        "hlrp train-laq experiment=",
    ] {
        assert!(report.contains(part), "{part} is missing in:\n{report}");
    }
}

#[test]
fn doctor_marks_what_stands_in_the_way_of_training() {
    let installed = Installed::new(&[
        ("hlrp-train-laq", "echo 'libtorch_cpu.so: not found' >&2; exit 127"),
        ("hlrp-data", "echo hi"),
    ]);
    let output = installed.run(&["doctor", "logging.min_free_gb=1e9"]);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    let problems: Vec<&str> = report.lines().filter(|line| line.starts_with('!')).collect();
    let [libtorch, ffmpeg, runs, cache] = problems[..] else { panic!("{report}") };
    assert!(libtorch.contains("fails: libtorch_cpu.so: not found"), "{libtorch}");
    assert!(ffmpeg.contains("does not print JSON"), "{ffmpeg}");
    assert!(runs.contains("not enough free space") && cache.contains("not enough free space"), "{runs}\n{cache}");
    assert!(report.contains("hint: free space on that disk"), "{report}");
}

#[test]
fn doctor_speaks_json() {
    let output = Installed::new(&[]).run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let libtorch = findings.iter().find(|finding| finding["name"] == "libtorch").unwrap();
    assert_eq!(libtorch["status"], "problem");
    assert_eq!(libtorch["hint"], "build it with `cargo build --release -p hlrp-laq`");
}

#[test]
fn doctor_names_a_login_node() {
    let installed = Installed::new(&[]);
    let slurm = tempfile::tempdir().unwrap();
    write_script(slurm.path(), "sbatch", "exit 1");
    fs::write(slurm.path().join("slurm.conf"), "").unwrap();
    let host = |job: Option<&str>| {
        let mut command = installed.hlrp(&["doctor"]);
        command.env("SLURM_CONF", slurm.path().join("slurm.conf"));
        command.env("PATH", slurm.path()).envs(job.map(|id| ("SLURM_JOB_ID", id)));
        let report = String::from_utf8(start(&mut command).wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(job.is_none(), report.contains("nothing: this is a login node"), "{report}");
        report.lines().find(|line| line[2..].starts_with("host")).unwrap().to_owned()
    };
    assert!(host(None).starts_with('!') && host(None).contains("a login node"), "{}", host(None));
    assert!(host(Some("4711")).ends_with("inside Slurm job 4711"), "{}", host(Some("4711")));
}

#[test]
fn an_installed_slurm_without_a_configuration_makes_no_login_node() {
    let installed = Installed::new(&[]);
    let slurm = tempfile::tempdir().unwrap();
    write_script(slurm.path(), "sbatch", "exit 1");
    let mut command = installed.hlrp(&["doctor"]);
    command.env("PATH", slurm.path()).env("SLURM_CONF", slurm.path().join("missing"));
    let report = String::from_utf8(start(&mut command).wait_with_output().unwrap().stdout).unwrap();
    assert!(report.contains("training may run here") && report.contains("hlrp train-laq experiment="), "{report}");
}

#[test]
fn the_controller_says_which_host_is_a_compute_node() {
    let installed = Installed::new(&[]);
    let slurm = tempfile::tempdir().unwrap();
    write_script(slurm.path(), "sbatch", "exit 1");
    fs::write(slurm.path().join("slurm.conf"), "").unwrap();
    let report = |scontrol: &str| {
        write_script(slurm.path(), "scontrol", scontrol);
        let mut command = installed.hlrp(&["doctor"]);
        command.env("PATH", slurm.path()).env("SLURM_CONF", slurm.path().join("slurm.conf"));
        String::from_utf8(start(&mut command).wait_with_output().unwrap().stdout).unwrap()
    };
    assert!(report("echo NodeName=box State=IDLE").contains("training may run here"));
    assert!(
        report("echo 'slurm_load_node error: Unable to contact slurm controller'; exit 1").contains("does not answer")
    );
    assert!(report("/bin/sleep 60").contains("does not answer"), "a controller that hangs is silent");
}
