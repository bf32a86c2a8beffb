//! Why LeRobot failed: its exit code, and the exception in its output.

use crate::HINTS;
use crate::child::Ended;
use crate::error::CommandError;
use anyhow::Result;
use hlrp_track::{console, exit_code};
use std::{path::Path, process::ExitCode};

const TRACEBACK: &str = "Traceback (most recent call last):";
/// An exception's text is repeated up to this many lines.
const MAX_LINES: usize = 20;

/// Bytes of a log so far.
pub(super) fn length(log: &Path) -> usize {
    std::fs::read(log).map_or(0, |text| text.len())
}

/// Reports that LeRobot failed and, if known, why; and passes its exit code on. LeRobot's output is in the run directory's log from the
/// byte `log_start` on.
pub(super) fn failed(program: &str, ended: Ended, run_dir: &Path, log_start: usize) -> Result<ExitCode> {
    let log = run_dir.join("unified.log");
    let mut text = match ended.is_interrupted {
        true => format!("{program} was stopped by a signal; there is no checkpoint to continue from"),
        false => format!("{program} ended with exit code {}", ended.code),
    };
    let logged = std::fs::read(&log).unwrap_or_default();
    let logged = String::from_utf8_lossy(logged.get(log_start..).unwrap_or_default());
    let reason = last_exception(&logged).filter(|_| !ended.is_interrupted);
    if let Some(reason) = &reason {
        text.push_str(&format!(": {reason}"));
    }
    let what = if reason.is_some() { "its whole output is" } else { "its last lines give the reason, above and" };
    let mut hint = format!("{what} in {}", log.display());
    if let Some(line) = logged.lines().find(|line| line.contains("Could not import third-party plugin")) {
        hint = format!("LeRobot could not import the policy plugin ({}); {hint}", line.trim());
    }
    console::report_error(&CommandError::new(text, hint), HINTS);
    Ok(ExitCode::from(if ended.code == 0 { exit_code::INTERRUPTED } else { ended.code }))
}

/// The last exception with a text: its line `SomeError: text` and those that follow, up to an empty one.
fn last_exception(printed: &str) -> Option<String> {
    let lines: Vec<&str> = printed.lines().map(without_rank).collect();
    let last = (0..lines.len()).rev().filter(|&index| lines[index].trim() == TRACEBACK).find_map(|traceback| {
        let start = traceback + 1 + lines[traceback + 1..].iter().position(|line| says_something(line))?;
        let block = lines[start..].iter().take_while(|line| !line.trim().is_empty() && line.trim() != TRACEBACK);
        Some(block.take(MAX_LINES).copied().collect::<Vec<_>>().join("\n"))
    });
    last.map(|text| text.trim_end().to_owned())
}

/// One of several processes marks its lines: `[rank0]: ValueError: text`.
fn without_rank(line: &str) -> &str {
    let marked = line.strip_prefix("[rank").and_then(|rest| rest.split_once("]: "));
    marked.filter(|(rank, _)| rank.bytes().all(|byte| byte.is_ascii_digit())).map_or(line, |(_, rest)| rest)
}

/// Whether this is an exception's first line: a dotted name without blanks, and a text.
fn says_something(line: &str) -> bool {
    line.split_once(": ").is_some_and(|(name, text)| {
        let is_name = |char: char| char.is_alphanumeric() || "._".contains(char);
        name.starts_with(char::is_alphabetic) && name.chars().all(is_name) && !text.trim().is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_exception_is_repeated_with_its_hint() {
        let printed = "step:1 loss:0.5\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g(x: 1)\nKeyError: 'x'\n\n\
                       During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  \
                       File \"b.py\", line 2, in h\nhlrp.Error: the artifact lacks x\nhint: train again\n\nwandb: bye\n";
        assert_eq!(last_exception(printed).as_deref(), Some("hlrp.Error: the artifact lacks x\nhint: train again"));
    }

    #[test]
    fn an_exception_without_text_is_passed_over() {
        let printed = "[rank1]: Traceback (most recent call last):\n[rank1]:   File \"a.py\", line 1\n[rank1]: ValueError: bad\n\
                       Traceback (most recent call last):\n  File \"launch.py\", line 9\nelastic.ChildFailedError: \n=====\n";
        assert_eq!(last_exception(printed).as_deref(), Some("ValueError: bad"));
        assert_eq!(
            last_exception("Error: no traceback here\nTraceback (most recent call last):\nKeyboardInterrupt\n"),
            None
        );
    }
}
