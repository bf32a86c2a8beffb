//! Slurm's own commands, each with a time limit.
//!
//! A cluster is busy, in maintenance, or reached through a command that hangs; what this process decides must hold then too. So a command that
//! does not answer is an error of its own ([`SlurmError::TimedOut`]), and a job's state is known only if the controller or its accounting says
//! it: [`Answer::Silent`] is not an answer, and never means that a job has ended.

mod error;
mod process;
mod records;
mod state;

pub use error::SlurmError;
pub use records::{AccountingRow, Job, JobDetails, Limits, MaxSubmit, Submitted};
pub use state::{Answer, Exit, State};

use process::{Output, run};
use records::{QUEUE_FORMAT, SEPARATOR};
use std::{collections::BTreeMap, ffi::OsString, path::Path, time::Duration};

/// How long a command may take. The commands themselves give up after 9 to 18 s when the controller is down, and say so.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// `sbatch` may take this many times longer: a busy controller answers late, and a job that was taken without an answer must be looked up.
const SUBMISSION_FACTOR: u32 = 2;
/// What Slurm says of a job that it does not know.
const UNKNOWN_JOB: &str = "Invalid job id specified";
/// What `scontrol requeue` says of a job that is in the queue.
const WAITING_JOB: &str = "Job is pending execution";
/// What `sacct` says where there is no accounting.
const NO_ACCOUNTING: &str = "accounting storage is disabled";
/// Format of `squeue` for people: job, partition, name, state, elapsed time, time limit, and why it waits or where it runs.
const TABLE_FORMAT: &str = "%.18i %.30P %.20j %.8T %.10M %.9l %R";
/// How far back accounting is searched for a submission.
const LOOKUP_START: &str = "now-2days";

/// The result of a command.
pub type Result<T, E = SlurmError> = std::result::Result<T, E>;

/// Slurm as this user reaches it.
#[derive(Debug, Clone)]
pub struct Slurm {
    /// Names for `-M`, separated by commas, where a site has several Slurms; none asks the local one.
    pub clusters: Option<String>,
    /// How long a command may take before it is killed.
    pub time_limit: Duration,
}

impl Slurm {
    /// With the usual time limit.
    pub fn new(clusters: Option<String>) -> Self {
        Self { clusters, time_limit: TIME_LIMIT }
    }

    /// The Slurm that has a job: `cluster` as [`Submitted`] or a [`Job`] reports it, else the same as this.
    #[must_use]
    pub fn on(&self, cluster: Option<&str>) -> Self {
        Self { clusters: cluster.map(str::to_owned).or_else(|| self.clusters.clone()), ..self.clone() }
    }

    /// Submits a batch script; `options` stand before it, such as `--dependency=afterok:12`.
    ///
    /// # Errors
    /// [`SlurmError::Refused`] with sbatch's own message: there is no job. [`SlurmError::TimedOut`]: there may be one; look for it with
    /// [`Slurm::find_by_comment`] before another try.
    pub fn submit(&self, script: &Path, options: &[String]) -> Result<Submitted> {
        let output = self.sbatch(script, options.iter().map(String::as_str).chain(["--parsable"]))?;
        Submitted::parse(&output.stdout).ok_or_else(|| output.unreadable())
    }

    /// Asks whether a batch script would be taken, and returns what sbatch says about its start.
    ///
    /// # Errors
    /// As for [`Slurm::submit`]; no job is submitted.
    pub fn test_only(&self, script: &Path, options: &[String]) -> Result<String> {
        let output = self.sbatch(script, options.iter().map(String::as_str).chain(["--test-only"]))?;
        Ok(output.message())
    }

    fn sbatch<'a>(&self, script: &Path, options: impl Iterator<Item = &'a str>) -> Result<Output> {
        let options = options.map(OsString::from).chain([script.into()]);
        self.run_within(self.time_limit * SUBMISSION_FACTOR, "sbatch", options)?.checked()
    }

    /// This user's jobs that are not over.
    ///
    /// # Errors
    /// The command fails or does not answer.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        self.queue(["--me"])
    }

    /// The jobs with these ids, those over included as long as the controller remembers them; unknown ids are left out. An array's id stands
    /// for its members.
    ///
    /// # Errors
    /// An invalid id; the command fails or does not answer.
    pub fn jobs_with_ids(&self, ids: &[&str]) -> Result<Vec<Job>> {
        for id in ids {
            check_id(id)?;
        }
        self.queue(["--states=all", &format!("--jobs={}", ids.join(","))])
    }

    /// What `squeue` prints to people: one line for each of this user's jobs that are not over or, given an id, for that job.
    ///
    /// # Errors
    /// As [`Slurm::jobs`]; an unknown id.
    pub fn table(&self, id: Option<&str>) -> Result<String> {
        let format = format!("--format={TABLE_FORMAT}");
        let output = match id {
            Some(id) => {
                check_id(id)?;
                self.run("squeue", [&format, "--states=all", &format!("--jobs={id}")])?
            }
            None => self.run("squeue", [&format, "--me"])?,
        };
        Ok(output.checked()?.stdout)
    }

    /// This user's jobs, also those over, whose comment has the word `token`: in the queue, else in accounting where it keeps comments.
    ///
    /// # Errors
    /// The queue cannot be read; then it is not known whether there is such a job.
    pub fn find_by_comment(&self, token: &str) -> Result<Vec<Job>> {
        let has_token = |comment: &str| comment.split_whitespace().any(|word| word == token);
        let mut jobs = self.queue(["--me", "--states=all"])?;
        jobs.retain(|job| has_token(&job.comment));
        if jobs.is_empty() {
            let user = format!("--user={}", rustix::process::getuid().as_raw());
            let start = format!("--starttime={LOOKUP_START}");
            let rows = self.accounting(["--allocations", &user, &start])?.unwrap_or_default();
            jobs = rows.into_iter().filter(|row| has_token(&row.comment)).map(Job::from).collect();
        }
        Ok(jobs)
    }

    /// What the controller knows about a job: one entry, or one for each member of an array. None if it does not know the id.
    ///
    /// # Errors
    /// An invalid id; the command fails or does not answer.
    pub fn details(&self, id: &str) -> Result<Vec<JobDetails>> {
        check_id(id)?;
        let mut jobs = Vec::new();
        for slurm in self.each() {
            let output = match slurm.run("scontrol", ["show", "job", id])?.checked() {
                Err(SlurmError::Refused { message, .. }) if is_unknown(&message) => continue,
                output => output?,
            };
            let found = JobDetails::parse(&output.stdout, slurm.clusters.as_deref());
            if found.is_empty() {
                return Err(output.unreadable());
            }
            jobs.extend(found);
        }
        Ok(jobs)
    }

    /// Accounting's rows of a job, oldest first: one for each start, and one for each member of an array. None where there is no accounting.
    ///
    /// # Errors
    /// An invalid id; the command fails or does not answer.
    pub fn history(&self, id: &str) -> Result<Option<Vec<AccountingRow>>> {
        check_id(id)?;
        self.accounting(["--allocations", "--duplicates", &format!("--jobs={id}")])
    }

    /// The state of a job or, for an array, of its least finished member.
    pub fn state(&self, id: &str) -> Answer {
        match self.details(id) {
            Err(error) => Answer::Silent { reason: error.to_string() },
            Ok(jobs) if jobs.is_empty() => self.state_in_accounting(id),
            Ok(jobs) => {
                Answer::of_members(jobs.into_iter().map(|job| Answer::new(job.state, job.exit, Some(job.restarts))))
            }
        }
    }

    /// The state of a job that the controller has forgotten.
    fn state_in_accounting(&self, id: &str) -> Answer {
        let rows = match self.history(id) {
            Err(error) => return Answer::Silent { reason: error.to_string() },
            Ok(rows) => rows.unwrap_or_default(),
        };
        let newest: BTreeMap<String, AccountingRow> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        Answer::of_members(newest.into_values().map(|row| match row.state.is_over() {
            true => Answer::Ended { state: row.state, exit: row.exit },
            // Accounting lost the end of the job: nobody knows it.
            false => Answer::Silent {
                reason: format!("accounting says {} of job {id}, which the controller does not know", row.state),
            },
        }))
    }

    /// Cancels a job if it is still waiting; one that runs or is over stays as it is.
    ///
    /// # Errors
    /// An invalid id; the command fails or does not answer.
    pub fn cancel_pending(&self, id: &str) -> Result<()> {
        self.act("scancel", ["--state=PENDING", id], id)
    }

    /// Cancels a job; one that is over stays as it is.
    ///
    /// # Errors
    /// An invalid id; the command fails or does not answer.
    pub fn cancel(&self, id: &str) -> Result<()> {
        self.act("scancel", [id], id)
    }

    /// Puts a job back into the queue under its own id; a member of an array is `ARRAYJOB_TASK`. One that Slurm has put back itself, as when it
    /// preempts, is there already.
    ///
    /// # Errors
    /// An invalid id; the site does not allow it; the command fails or does not answer.
    pub fn requeue(&self, id: &str) -> Result<()> {
        match self.act("scontrol", ["requeue", id], id) {
            Err(SlurmError::Refused { message, .. }) if message.contains(WAITING_JOB) => Ok(()),
            result => result,
        }
    }

    /// What this site allows, as far as it says so.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn limits(&self) -> Result<Limits> {
        let output = self.run("scontrol", ["show", "config"])?.checked()?;
        let mut limits = Limits::parse(&output.stdout);
        if limits.has_accounting {
            let of_user = rustix::process::getuid().as_raw().to_string();
            if let Some(user) = user_name(&of_user) {
                let user = format!("user={user}");
                limits.add_associations(&self.sacctmgr(["show", "assoc", &user, "format=MaxSubmit"]));
            }
            limits.add_qos(&self.sacctmgr(["show", "qos", "format=Name,MaxSubmitPU"]));
        }
        Ok(limits)
    }

    /// How many jobs of this user are in the queue, under `qos` or under any; each member of an array is one.
    ///
    /// # Errors
    /// The command fails or does not answer.
    pub fn num_queued(&self, qos: Option<&str>) -> Result<usize> {
        let of_qos = qos.map(|name| format!("--qos={name}"));
        let arguments = ["--noheader", "--me", "--array", "--format=%i"].into_iter().chain(of_qos.as_deref());
        Ok(self.run("squeue", arguments)?.checked()?.stdout.lines().count())
    }

    /// What sacctmgr prints; nothing where it refuses, as a site may let only administrators ask.
    fn sacctmgr<const N: usize>(&self, arguments: [&str; N]) -> String {
        let arguments = ["--noheader", "--parsable2"].into_iter().chain(arguments).map(OsString::from);
        let output = run("sacctmgr", arguments, self.time_limit).and_then(Output::checked);
        output.map(|output| output.stdout).unwrap_or_default()
    }

    fn queue<const N: usize>(&self, arguments: [&str; N]) -> Result<Vec<Job>> {
        let format = format!("--format={QUEUE_FORMAT}");
        let mut jobs = Vec::new();
        for slurm in self.each() {
            let output = match slurm.run("squeue", ["--noheader", &format].into_iter().chain(arguments))?.checked() {
                Err(SlurmError::Refused { message, .. }) if is_unknown(&message) => continue,
                output => output?,
            };
            let found = Job::parse_queue(&output.stdout, slurm.clusters.as_deref());
            jobs.extend(found.ok_or_else(|| output.unreadable())?);
        }
        Ok(jobs)
    }

    /// Each cluster by itself: `squeue` does not say which of several has a job, and `scontrol` asks only one.
    fn each(&self) -> Vec<Self> {
        match &self.clusters {
            Some(names) => names.split(',').map(|name| self.on(Some(name.trim()))).collect(),
            None => vec![self.clone()],
        }
    }

    fn accounting<const N: usize>(&self, arguments: [&str; N]) -> Result<Option<Vec<AccountingRow>>> {
        let delimiter = format!("--delimiter={SEPARATOR}");
        let format = format!("--format={}", AccountingRow::FORMAT);
        let arguments = ["--noheader", "--parsable2", &delimiter, &format].into_iter().chain(arguments);
        match self.run("sacct", arguments)?.checked() {
            Err(SlurmError::Refused { message, .. }) if message.contains(NO_ACCOUNTING) => Ok(None),
            output => {
                let output = output?;
                AccountingRow::parse(&output.stdout).map(Some).ok_or_else(|| output.unreadable())
            }
        }
    }

    fn act<const N: usize>(&self, program: &'static str, arguments: [&str; N], id: &str) -> Result<()> {
        check_id(id)?;
        self.run(program, arguments)?.checked().map(drop)
    }

    fn run<'a>(&self, program: &'static str, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        self.run_within(self.time_limit, program, arguments.into_iter().map(OsString::from))
    }

    fn run_within(
        &self,
        limit: Duration,
        program: &'static str,
        arguments: impl Iterator<Item = OsString>,
    ) -> Result<Output> {
        let clusters = self.clusters.as_ref().map(|names| OsString::from(format!("--clusters={names}")));
        run(program, clusters.into_iter().chain(arguments), limit)
    }
}

/// Whether Slurm says that it does not know a job, or a member of an array that it knows: `Job 12_3 not found`.
fn is_unknown(message: &str) -> bool {
    let is_about_member = |line: &str| line.starts_with("Job ") && line.ends_with(" not found");
    message.contains(UNKNOWN_JOB) || message.lines().any(is_about_member)
}

/// The user's name, as `/etc/passwd` or, where users are not in that file, `USER` has it.
fn user_name(uid: &str) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&uid)).then(|| fields[0].to_owned())
    });
    named.or_else(|| std::env::var("USER").ok())
}

/// Checks that a text is a job's id and nothing else: digits, and for a member of an array `_` and digits. Job 0, which for Slurm stands for
/// all jobs, is none.
///
/// # Errors
/// [`SlurmError::InvalidId`].
pub fn check_id(id: &str) -> Result<()> {
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|char| char.is_ascii_digit());
    let is_job = |text: &str| is_number(text) && text.chars().any(|char| char != '0');
    let is_valid = match id.split_once(['_', '+']) {
        Some((job, member)) => is_job(job) && is_number(member),
        None => is_job(id),
    };
    if is_valid { Ok(()) } else { Err(SlurmError::InvalidId { id: id.to_owned() }) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{check_id, is_unknown};

    #[test]
    fn a_job_is_unknown_if_slurm_says_so() {
        for message in ["slurm_load_jobs error: Invalid job id specified", "Job 12_3 not found"] {
            assert!(is_unknown(message), "{message}");
        }
        assert!(!is_unknown("slurm_load_jobs error: Unable to contact slurm controller (connect failure)"));
    }

    #[test]
    fn an_id_is_digits_and_perhaps_the_member_of_an_array() {
        for id in ["1", "123456", "12_3", "12_0", "12+0"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", "x", "-u", "1,2", "1 2", "1_", "_1", "1_[0-3]", "1_2_3", "0", "0_1", "00"] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
