//! What the console writes, on a terminal and elsewhere. Each case runs in a process of its own: this test program, started again.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use hlrp_track::console::{self, Progress};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tracing::level_filters::LevelFilter;

const RANK: &str = "CONSOLE_TEST_RANK";
const LOG: &str = "CONSOLE_TEST_LOG";

/// What the processes do; nothing when it runs as a test of its own.
#[test]
fn speak() {
    let (Ok(rank), Ok(log)) = (std::env::var(RANK), std::env::var(LOG)) else { return };
    console::init(LevelFilter::INFO, rank.parse().unwrap()).unwrap();
    tracing::info!(target: "hlrp_train::engine", "before the file");
    console::log_to(&PathBuf::from(log)).unwrap();
    tracing::warn!(target: "hlrp_data::video", episode = 3, "a bad frame");
    tracing::debug!(target: "hlrp_data::video", "too fine");
    tracing::info!(target: "some_crate", "of no interest here");
    let mut progress = Progress::new(200, 100);
    progress.advance(110);
    std::thread::sleep(Duration::from_millis(150)); // long enough for the bar to be drawn
    tracing::warn!(target: console::OWN_SAMPLES, "while the bar is there");
    progress.set(120, &[("loss", 0.123_456), ("lr", 1e-4)]);
    progress.finish();
    console::print("the table");
    assert!(console::init(LevelFilter::INFO, 0).is_err(), "only once");
    panic!("out of luck");
}

struct Spoken {
    stdout: String,
    stderr: String,
    log: Option<String>,
}

fn speaker(rank: usize, log: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // With one thread the harness begins the line of a test before it runs.
    command.args(["--exact", "speak", "--nocapture", "--test-threads=2"]);
    command.envs([(RANK, rank.to_string()), (LOG, log.display().to_string())]);
    command
}

fn listen(rank: usize) -> Spoken {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("unified.log");
    let output = speaker(rank, &log).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Spoken { stdout: text(output.stdout), stderr: text(output.stderr), log: fs::read_to_string(log).ok() }
}

/// `[YYYY-MM-DD HH:MM:SS]` as zeros and the rest of the line.
fn without_time(text: &str) -> Vec<String> {
    let digits_to_zero = |c: char| if c.is_ascii_digit() { '0' } else { c };
    text.lines()
        .filter_map(|line| line.split_once(']'))
        .filter(|(time, _)| time.chars().map(digits_to_zero).eq("[0000-00-00 00:00:00".chars()))
        .map(|(_, rest)| rest.to_owned())
        .collect()
}

#[test]
fn lines_go_to_standard_error_and_the_file_and_the_table_to_standard_output() {
    let Spoken { stdout, stderr, log } = listen(0);
    let lines = without_time(&stderr);
    assert_eq!(lines[0], "[train.engine][INFO] - before the file");
    assert_eq!(lines[1], "[data.video][WARN] - a bad frame episode=3");
    let progress = "[progress][INFO] - [Step 120/200] loss=0.1235, lr=1.00e-04 | ";
    assert_eq!(lines[2], "[samples][WARN] - while the bar is there");
    assert!(lines[3].starts_with(progress) && lines[3].contains(" steps/s, ETA "), "{}", lines[3]);
    assert!(lines[4].starts_with("[panic][ERROR] - ") && stderr.contains("out of luck"), "{stderr}");
    assert_eq!(lines.len(), 5, "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "no colours and no bar outside a terminal: {stderr:?}");
    assert!(stdout.lines().any(|line| line == "the table"), "{stdout}");

    let log = log.unwrap();
    assert_eq!(without_time(&log), lines[1..], "the file has every line since it was opened");
    assert!(log.contains("out of luck"), "and the panic");
}

#[test]
fn other_ranks_only_warn_of_their_own_samples() {
    let Spoken { stdout, stderr, log } = listen(1);
    let lines = without_time(&stderr);
    assert_eq!(lines[0], "[samples][WARN] - rank 1: while the bar is there");
    assert!(lines[1].starts_with("[panic][ERROR] - rank 1: "), "{stderr}");
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(!stdout.contains("the table"), "{stdout}");
    assert_eq!(log, None);
}

#[test]
fn a_line_reaches_standard_error_in_one_piece() {
    let dir = tempfile::tempdir().unwrap();
    let (own, of_child) = UnixDatagram::pair().unwrap();
    own.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = speaker(0, &dir.path().join("unified.log"));
    let mut child = command.stdout(Stdio::null()).stderr(OwnedFd::from(of_child)).spawn().unwrap();
    let mut piece = [0; 1 << 16];
    for line in ["before the file\n", "a bad frame episode=3\n", "while the bar is there\n"] {
        let length = own.recv(&mut piece).unwrap();
        let piece = std::str::from_utf8(&piece[..length]).unwrap();
        assert!(piece.starts_with('[') && piece.ends_with(line), "{piece:?}");
    }
    child.wait().unwrap();
}

#[test]
fn on_a_terminal_a_bar_shows_progress_and_lines_stay_whole_above_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("unified.log");
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let window = rustix::termios::Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, window).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let screen_end = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut command = speaker(0, &log);
    let mut child = command.stdout(Stdio::null()).stderr(screen_end).env("TERM", "xterm").spawn().unwrap();
    drop(command); // only the child holds the terminal now, so that reading ends when the child does
    let mut bytes = Vec::new();
    // The terminal reports an error, not an end, when the last program on it has gone.
    let _ = File::from(terminal).read_to_end(&mut bytes);
    child.wait().unwrap();

    let mut screen = vt100::Parser::new(400, 120, 0);
    screen.process(&bytes);
    let shown = screen.screen().contents();
    let lines = without_time(&shown);
    assert_eq!(lines[2], "[samples][WARN] - while the bar is there", "{shown}");
    assert!(lines[3].starts_with("[panic][ERROR]"), "the bar replaces progress lines: {shown}");
    assert!(!shown.contains('─'), "the bar is gone in the end: {shown}");
    let bar = " 110/200 [00:00:00]";
    assert!(String::from_utf8_lossy(&bytes).contains(bar), "it was there: {}", String::from_utf8_lossy(&bytes));
    assert!(fs::read_to_string(log).unwrap().contains("[Step 120/200] loss=0.1235"), "the file has the progress line");
}
