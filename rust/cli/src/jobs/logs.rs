//! `hlrp jobs logs`: what a job has written.

use super::{JobId, SlurmOptions, details, print_json, run_dir, tail::Tail, unknown};
use crate::error::CommandError;
use anyhow::{Context, Result};
use clap::Args;
use hlrp_config::secret::redact;
use hlrp_slurm::client::{Answer, JobDetails, Slurm};
use serde::Serialize;
use std::{
    io::{Write, stderr, stdout},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Interval at which the files are read.
const READ_INTERVAL: Duration = Duration::from_millis(500);
/// Interval at which Slurm is asked whether the job is over.
const STATE_INTERVAL: Duration = Duration::from_secs(5);

/// Options of `hlrp jobs logs`.
#[derive(Debug, Args)]
#[command(after_help = "The job's .out goes to standard output and its .err to standard error.")]
pub(crate) struct LogsOptions {
    /// Id; a member of an array is 4711_3.
    #[arg(value_name = "ID")]
    job: JobId,
    /// Go on until the job is over, also across its starts when it is put back into the queue.
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last N lines of each file instead of all.
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// The run's directory, for a job that Slurm has forgotten.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) slurm: SlurmOptions,
}

/// Where a job writes.
#[derive(Debug, Serialize)]
struct Files {
    job: String,
    /// None once Slurm has forgotten the job.
    state: Option<String>,
    stdout: PathBuf,
    stderr: PathBuf,
}

pub(super) fn logs(options: &LogsOptions) -> Result<()> {
    let (slurm, files) = find(options)?;
    if options.slurm.json {
        return print_json(&files);
    }
    let mut streams = vec![Stream::new(&files.stdout, false)];
    if files.stderr != files.stdout {
        streams.push(Stream::new(&files.stderr, true));
    }
    for stream in &mut streams {
        stream.print_first(options.lines)?;
    }
    if options.follow {
        follow(&slurm, &options.job.id, &mut streams)?;
    } else if streams.iter().all(|stream| !stream.path.exists()) {
        let state = files.state.unwrap_or_else(|| "unknown to Slurm".to_owned());
        tracing::warn!("job {} is {state} and has written nothing yet to {}", files.job, files.stdout.display());
    }
    for stream in &mut streams {
        let rest = stream.tail.rest();
        stream.print(&rest)?;
    }
    Ok(())
}

fn find(options: &LogsOptions) -> Result<(Slurm, Files)> {
    let id = &options.job.id;
    let (slurm, jobs) = match details(&options.slurm, &options.job) {
        // The run's directory answers in its place.
        Err(_) if options.run_dir.is_some() => (options.slurm.slurm(), Vec::new()),
        found => found?,
    };
    let job = match &jobs[..] {
        [] => return Ok((slurm, in_run_dir(id, options.run_dir.as_deref())?)),
        [job] if !job.id.contains('[') => job,
        members => {
            let ids: Vec<&str> = members.iter().map(|job| job.id.as_str()).collect();
            let hint = format!("give one of {}", ids.join(", "));
            return Err(CommandError::new(format!("job {id} is an array"), hint).into());
        }
    };
    // The batch script of an array passes the output on to the run of each member.
    let passed_on = run_dir(job)?.and_then(|dir| in_run_dir(&job.id, Some(&dir)).ok());
    if let Some(files) = passed_on {
        return Ok((slurm, Files { state: Some(job.state.to_string()), ..files }));
    }
    let no_file = || CommandError::new(format!("job {id} writes to no file"), "an interactive job has none");
    let files = Files {
        job: job.id.clone(),
        state: Some(job.state.to_string()),
        stdout: written_name(job, job.stdout.as_deref()).ok_or_else(no_file)?,
        stderr: written_name(job, job.stderr.as_deref()).ok_or_else(no_file)?,
    };
    Ok((slurm, files))
}

/// The name of a file for which Slurm may still show the pattern.
fn written_name(job: &JobDetails, path: Option<&Path>) -> Option<PathBuf> {
    let text = path?.to_str()?;
    let (array, member) = job.id.split_once('_').unwrap_or((&job.id, ""));
    Some(text.replace("%A", array).replace("%a", member).replace("%j", &job.id).into())
}

fn in_run_dir(id: &str, run_dir: Option<&Path>) -> Result<Files> {
    let run_dir = run_dir.ok_or_else(|| unknown(id))?;
    let [stdout, stderr] = ["out", "err"].map(|end| run_dir.join(format!("{id}.{end}")));
    if !stdout.is_file() {
        let hint = "the folder has <job id>.out for each job that worked on it";
        return Err(CommandError::new(format!("there is no {}", stdout.display()), hint).into());
    }
    Ok(Files { job: id.to_owned(), state: None, stdout, stderr })
}

/// Prints what is added until the job is over.
fn follow(slurm: &Slurm, id: &str, streams: &mut [Stream]) -> Result<()> {
    let mut is_over = is_over(slurm, id, false);
    let mut asked = Instant::now();
    loop {
        let mut is_new = false;
        for stream in streams.iter_mut() {
            is_new |= stream.print_new()?;
        }
        // Everything was read after the job's end.
        if is_over && !is_new {
            return Ok(());
        }
        thread::sleep(READ_INTERVAL);
        if !is_over && asked.elapsed() >= STATE_INTERVAL {
            is_over = self::is_over(slurm, id, is_over);
            asked = Instant::now();
        }
    }
}

/// Whether the job is over. Where Slurm does not answer, the files are read on.
fn is_over(slurm: &Slurm, id: &str, before: bool) -> bool {
    match slurm.state(id) {
        Answer::Active { .. } => false,
        Answer::Ended { .. } | Answer::Unknown => true,
        Answer::Silent { reason } => {
            tracing::warn!("{reason}; still reading the files");
            before
        }
    }
}

/// One of the job's files.
struct Stream {
    path: PathBuf,
    tail: Tail,
    is_err: bool,
}

impl Stream {
    fn new(path: &Path, is_err: bool) -> Self {
        Self { path: path.to_path_buf(), tail: Tail::new(path), is_err }
    }

    /// Prints what is there already, or the last `lines` of it.
    fn print_first(&mut self, lines: Option<usize>) -> Result<()> {
        let Some(lines) = lines else {
            while self.print_new()? {}
            return Ok(());
        };
        let mut kept = String::new();
        loop {
            let more = self.read()?;
            kept = last_lines(&(kept + &more), lines);
            if more.is_empty() {
                return self.print(&kept);
            }
        }
    }

    /// Whether there was anything to print.
    fn print_new(&mut self) -> Result<bool> {
        let text = self.read()?;
        self.print(&text)?;
        Ok(!text.is_empty())
    }

    fn read(&mut self) -> Result<String> {
        self.tail.read().with_context(|| format!("cannot read {}", self.path.display()))
    }

    fn print(&self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let text = redact(text);
        let write = |mut out: Box<dyn Write>| out.write_all(text.as_bytes()).and_then(|()| out.flush());
        Ok(write(if self.is_err { Box::new(stderr()) } else { Box::new(stdout()) })?)
    }
}

fn last_lines(text: &str, lines: usize) -> String {
    let skipped = text.lines().count().saturating_sub(lines);
    text.split_inclusive('\n').skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_of_a_text() {
        for (lines, expected) in [(0, ""), (1, "c\n"), (2, "b\nc\n"), (3, "a\nb\nc\n"), (9, "a\nb\nc\n")] {
            assert_eq!(last_lines("a\nb\nc\n", lines), expected, "{lines}");
        }
        assert_eq!(last_lines("", 2), "");
    }
}
