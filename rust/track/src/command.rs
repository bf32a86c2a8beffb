//! Other programs that are asked something, with a time limit.

use std::{
    io::{self, Read},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Interval at which a program is asked whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Runs a program without input and returns what it prints.
///
/// # Errors
/// It cannot be started, or runs longer than `limit`: it is then killed.
pub fn output_within(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // A full pipe would stop the program.
    let streams = (reader(child.stdout.take()), reader(child.stderr.take()));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs_f64())));
        }
        thread::sleep(POLL_INTERVAL);
    };
    // A grandchild may hold the pipes; what it prints later is not part of the answer.
    let [stdout, stderr] = [streams.0, streams.1].map(|stream| {
        let rest = deadline.saturating_duration_since(Instant::now()).max(POLL_INTERVAL);
        stream.recv_timeout(rest).unwrap_or_default()
    });
    Ok(Output { status, stdout, stderr })
}

/// Reads a stream to its end in a thread.
fn reader(stream: Option<impl Read + Send + 'static>) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stream) = stream {
            // What was read until then is the answer.
            let _ = stream.read_to_end(&mut text);
        }
        // Nobody may be waiting any more.
        let _ = sender.send(text);
    });
    receiver
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_is_read_to_its_end_and_killed_at_its_limit() {
        let output = output_within(&mut shell("yes | head -c 300000; echo no >&2"), Duration::from_secs(20)).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.as_slice()), (300_000, b"no\n".as_slice()));
        let error = output_within(&mut shell("exec sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "no answer within 0.05 s");
    }
}
