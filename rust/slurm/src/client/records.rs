//! What Slurm's commands print, read into records.

use super::{Exit, State};
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};

/// Between the fields of a line: a character that no name or comment contains.
pub(super) const SEPARATOR: char = '\u{1f}';
/// Format of `squeue` for [`Job::parse_queue`].
pub(super) const QUEUE_FORMAT: &str =
    "%i\u{1f}%T\u{1f}%P\u{1f}%j\u{1f}%u\u{1f}%M\u{1f}%l\u{1f}%r\u{1f}%N\u{1f}%S\u{1f}%Z\u{1f}%k";

/// What `sbatch --parsable` returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Submitted {
    /// The job's id.
    pub id: String,
    /// The cluster that took it, where `-M` was given.
    pub cluster: Option<String>,
}

impl Submitted {
    /// A member of this array.
    #[must_use]
    pub fn member(&self, number: usize) -> Self {
        Self { id: format!("{}_{number}", self.id), cluster: self.cluster.clone() }
    }

    /// The last line that is `id` or `id;cluster`: sites print notes before and after it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        text.lines().rev().find_map(|line| {
            let (id, cluster) = line.trim().split_once(';').map_or((line.trim(), None), |(id, name)| (id, Some(name)));
            let is_id = !id.is_empty() && id.chars().all(|char| char.is_ascii_digit());
            let is_name = cluster.is_none_or(|name| !name.is_empty() && !name.contains(char::is_whitespace));
            (is_id && is_name).then(|| Self { id: id.to_owned(), cluster: cluster.map(str::to_owned) })
        })
    }
}

/// A job, as `squeue` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// Id; a member of an array is `12_3`, its members that wait together are `12_[4-7%2]`.
    pub id: String,
    /// Cluster, where `-M` was given.
    pub cluster: Option<String>,
    /// State.
    pub state: State,
    /// Partition, or those that it waits for, separated by commas.
    pub partition: String,
    /// Name.
    pub name: String,
    /// Who submitted it.
    pub user: String,
    /// Time since its start, as Slurm writes it: `[days-]hours:minutes:seconds`.
    pub elapsed: String,
    /// Its time limit, written the same way.
    pub time_limit: String,
    /// Why it waits or how it failed; `None` otherwise.
    pub reason: String,
    /// Its nodes, empty before its start.
    pub nodes: String,
    /// Start, actual or expected, as `2026-01-31T12:00:00`; `N/A` where the scheduler has none yet.
    pub start: String,
    /// Working directory.
    pub work_dir: PathBuf,
    /// Comment.
    pub comment: String,
}

impl Job {
    /// Lines of `squeue` in [`QUEUE_FORMAT`]; none if one has another form.
    pub(super) fn parse_queue(text: &str, cluster: Option<&str>) -> Option<Vec<Self>> {
        let mut jobs = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let fields: Vec<&str> = line.split(SEPARATOR).map(str::trim).collect();
            let [id, state, partition, name, user, elapsed, limit, reason, nodes, start, work_dir, comment] =
                fields.try_into().ok()?;
            jobs.push(Self {
                id: id.to_owned(),
                cluster: cluster.map(str::to_owned),
                state: State::from(state.to_owned()),
                partition: partition.to_owned(),
                name: name.to_owned(),
                user: user.to_owned(),
                elapsed: elapsed.to_owned(),
                time_limit: limit.to_owned(),
                reason: reason.to_owned(),
                nodes: nodes.to_owned(),
                start: start.to_owned(),
                work_dir: work_dir.into(),
                comment: known(comment).unwrap_or_default(),
            });
        }
        Some(jobs)
    }
}

impl From<AccountingRow> for Job {
    fn from(row: AccountingRow) -> Self {
        Self {
            id: row.id,
            cluster: Some(row.cluster).filter(|name| !name.is_empty()),
            state: row.state,
            partition: row.partition,
            name: row.name,
            user: row.user,
            elapsed: row.elapsed,
            time_limit: row.time_limit,
            reason: "None".to_owned(),
            nodes: row.nodes,
            start: row.start,
            work_dir: row.work_dir,
            comment: row.comment,
        }
    }
}

/// A job, as `scontrol show job` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobDetails {
    /// Id; a member of an array is `12_3`.
    pub id: String,
    /// Cluster, where `-M` was given.
    pub cluster: Option<String>,
    /// Name.
    pub name: String,
    /// Who submitted it: `name(uid)`.
    pub user: String,
    /// State.
    pub state: State,
    /// Why it waits or how it failed; `None` otherwise.
    pub reason: String,
    /// How its script ended; meaningful once it is over.
    pub exit: Option<Exit>,
    /// How often it was put back into the queue.
    pub restarts: u32,
    /// Partition.
    pub partition: String,
    /// Time since its last start.
    pub elapsed: String,
    /// Time limit.
    pub time_limit: String,
    /// Its nodes.
    pub nodes: String,
    /// File of its output.
    pub stdout: Option<PathBuf>,
    /// File of its errors.
    pub stderr: Option<PathBuf>,
    /// Working directory.
    pub work_dir: Option<PathBuf>,
    /// Comment.
    pub comment: String,
}

impl JobDetails {
    /// Reads what `scontrol show job` prints: one paragraph for each job.
    pub(super) fn parse(text: &str, cluster: Option<&str>) -> Vec<Self> {
        let mut paragraphs: Vec<Vec<&str>> = Vec::new();
        for line in text.lines() {
            if line.starts_with("JobId=") {
                paragraphs.push(Vec::new());
            }
            if let Some(paragraph) = paragraphs.last_mut() {
                paragraph.push(line.trim());
            }
        }
        paragraphs.iter().filter_map(|lines| Self::from_lines(lines, cluster)).collect()
    }

    fn from_lines(lines: &[&str], cluster: Option<&str>) -> Option<Self> {
        // A value with spaces has the rest of its line.
        let rest = |key: &str| lines.iter().find_map(|line| known(line.strip_prefix(key)?.strip_prefix('=')?.trim()));
        let word = |key: &str| {
            let words = lines.iter().flat_map(|line| line.split_whitespace());
            words
                .filter_map(|word| word.split_once('='))
                .find(|(name, _)| *name == key)
                .and_then(|(_, value)| known(value))
        };
        let id = match (word("ArrayJobId"), word("ArrayTaskId")) {
            (Some(array), Some(task)) if task.chars().all(|char| char.is_ascii_digit()) => format!("{array}_{task}"),
            (Some(array), Some(tasks)) => format!("{array}_[{tasks}]"),
            _ => word("JobId")?,
        };
        let name = lines.first()?.split_once(" JobName=").map(|(_, name)| name.to_owned());
        Some(Self {
            id,
            cluster: cluster.map(str::to_owned),
            name: name.unwrap_or_default(),
            user: word("UserId").unwrap_or_default(),
            state: State::from(word("JobState")?),
            reason: word("Reason").unwrap_or_default(),
            exit: word("ExitCode").and_then(|text| text.parse().ok()),
            restarts: word("Restarts").and_then(|text| text.parse().ok()).unwrap_or(0),
            partition: word("Partition").unwrap_or_default(),
            elapsed: word("RunTime").unwrap_or_default(),
            time_limit: word("TimeLimit").unwrap_or_default(),
            nodes: word("NodeList").unwrap_or_default(),
            stdout: rest("StdOut").map(PathBuf::from),
            stderr: rest("StdErr").map(PathBuf::from),
            work_dir: rest("WorkDir").map(PathBuf::from),
            comment: rest("Comment").unwrap_or_default(),
        })
    }
}

/// One start of a job, as accounting keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountingRow {
    /// Id; a member of an array is `12_3`.
    pub id: String,
    /// State; `REQUEUED` for a start after which there was another.
    pub state: State,
    /// How its script ended.
    pub exit: Option<Exit>,
    /// Partition.
    pub partition: String,
    /// Time from start to end: `[days-]hours:minutes:seconds`.
    pub elapsed: String,
    /// Time limit.
    pub time_limit: String,
    /// Cluster.
    pub cluster: String,
    /// Who submitted it.
    pub user: String,
    /// Name.
    pub name: String,
    /// Nodes.
    pub nodes: String,
    /// Start, as `2026-01-31T12:00:00`.
    pub start: String,
    /// Working directory.
    pub work_dir: PathBuf,
    /// Comment, where the site stores it.
    pub comment: String,
}

impl AccountingRow {
    /// Format of `sacct` for [`AccountingRow::parse`].
    pub(super) const FORMAT: &str =
        "JobID,State,ExitCode,Partition,Elapsed,Timelimit,Cluster,User,JobName,NodeList,Start,WorkDir,Comment";

    /// Lines of `sacct`; none if one has another form.
    pub(super) fn parse(text: &str) -> Option<Vec<Self>> {
        let rows = text.lines().filter(|line| !line.trim().is_empty()).map(|line| {
            let fields: Vec<&str> = line.split(SEPARATOR).map(str::trim).collect();
            let [id, state, exit, partition, elapsed, limit, cluster, user, name, nodes, start, work_dir, comment] =
                fields.try_into().ok()?;
            Some(Self {
                id: id.to_owned(),
                state: State::from(state.to_owned()),
                exit: exit.parse().ok(),
                partition: partition.to_owned(),
                elapsed: elapsed.to_owned(),
                time_limit: limit.to_owned(),
                cluster: cluster.to_owned(),
                user: user.to_owned(),
                name: name.to_owned(),
                nodes: nodes.to_owned(),
                start: start.to_owned(),
                work_dir: work_dir.into(),
                comment: known(comment).unwrap_or_default(),
            })
        });
        rows.collect()
    }
}

/// What a site allows, as far as it says so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Limits {
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// One more than the largest index of a job array.
    pub max_array_size: Option<u32>,
    /// Jobs that the controller keeps, of all users.
    pub max_job_count: Option<u32>,
    /// Jobs that this user may have in the queue, waiting or running.
    pub max_submit_jobs: Option<u32>,
    /// The same for each quality of service that limits it.
    pub max_submit_jobs_of_qos: BTreeMap<String, u32>,
    /// Whether the site keeps accounts.
    pub has_accounting: bool,
}

impl Limits {
    /// Reads what `scontrol show config` prints.
    pub(super) fn parse(text: &str) -> Self {
        let settings: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let number = |key: &str| settings.get(key).and_then(|value| value.parse().ok());
        Self {
            cluster: settings.get("ClusterName").map(|name| (*name).to_owned()),
            max_array_size: number("MaxArraySize"),
            max_job_count: number("MaxJobCount"),
            has_accounting: settings.get("AccountingStorageType").is_some_and(|kind| kind.ends_with("slurmdbd")),
            ..Self::default()
        }
    }

    /// Adds the limits of the user's associations, one on each line; the smallest counts.
    pub(super) fn add_associations(&mut self, text: &str) {
        self.max_submit_jobs = text.lines().filter_map(|line| line.trim().parse().ok()).min();
    }

    /// Adds the limits of each quality of service: `name|limit` on each line.
    pub(super) fn add_qos(&mut self, text: &str) {
        let limits = text.lines().filter_map(|line| line.trim().split_once('|'));
        self.max_submit_jobs_of_qos =
            limits.filter_map(|(name, limit)| Some((name.to_owned(), limit.parse().ok()?))).collect();
    }

    /// The limits on jobs of this user in the queue: of all of them, and of those under each quality of service, as far as the site says.
    pub fn max_submit(&self) -> Vec<MaxSubmit> {
        let of_user = self.max_submit_jobs.map(|num_jobs| MaxSubmit { num_jobs, qos: None });
        let of_qos = self.max_submit_jobs_of_qos.iter();
        let of_qos = of_qos.map(|(name, num_jobs)| MaxSubmit { num_jobs: *num_jobs, qos: Some(name.clone()) });
        of_user.into_iter().chain(of_qos).collect()
    }
}

/// How many jobs a user may have in the queue, waiting or running; each member of an array is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxSubmit {
    /// At most.
    pub num_jobs: u32,
    /// Under this quality of service; under any when none.
    pub qos: Option<String>,
}

/// A value, unless Slurm says that there is none.
fn known(value: &str) -> Option<String> {
    Some(value).filter(|value| !matches!(*value, "" | "(null)" | "N/A")).map(str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_submission_is_found_among_a_site_s_notes() {
        let submitted = |id: &str, cluster: Option<&str>| {
            Some(Submitted { id: id.to_owned(), cluster: cluster.map(str::to_owned) })
        };
        assert_eq!(Submitted::parse("17\n"), submitted("17", None));
        assert_eq!(Submitted::parse("Welcome!\n17;lrz\nYour budget: 3 h\n"), submitted("17", Some("lrz")));
        assert_eq!(Submitted::parse("Submitted batch job 17\n"), None);
        assert_eq!(Submitted::parse("17;\n"), None);
        assert_eq!(Submitted::parse(""), None);
    }

    #[test]
    fn a_queue_has_names_and_comments_with_any_character() {
        let recorded = "5\u{1f}PENDING\u{1f}lrz-cpu\u{1f}a|b\u{1f}root\u{1f}0:00\u{1f}2-00:00:00\u{1f}JobHeldUser\u{1f}\u{1f}N/A\u{1f}/tmp/my runs\u{1f}hlrp:tok1\n\
            3_[1-3%1]\u{1f}PENDING\u{1f}lrz-v100x2\u{1f}a\u{1f}root\u{1f}0:00\u{1f}30:00\u{1f}JobArrayTaskLimit\u{1f}\u{1f}2026-11-30T02:51:04\u{1f}/tmp\u{1f}(null)\n\
            2\u{1f}RUNNING\u{1f}lrz-v100x2\u{1f}a\u{1f}root\u{1f}1:37\u{1f}30:00\u{1f}None\u{1f}n2\u{1f}2026-11-28T02:51:04\u{1f}/tmp\u{1f}two words\n";
        let jobs = Job::parse_queue(recorded, Some("lrz")).unwrap();
        assert_eq!(jobs.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["5", "3_[1-3%1]", "2"]);
        assert_eq!((jobs[0].name.as_str(), jobs[0].cluster.as_deref()), ("a|b", Some("lrz")));
        assert_eq!(jobs[0].work_dir, PathBuf::from("/tmp/my runs"));
        assert_eq!(jobs[0].comment, "hlrp:tok1");
        assert_eq!(jobs[1].comment, "");
        assert_eq!(jobs[2].comment, "two words");
        assert_eq!((&jobs[2].state, jobs[2].nodes.as_str()), (&State::Running, "n2"));
        assert_eq!(Job::parse_queue("slurm is in maintenance\n", None), None);
        assert_eq!(Job::parse_queue("", None), Some(Vec::new()));
    }

    const DETAILS: &str = "\
JobId=2 JobName=a b=c
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   Priority=4294901758 Nice=0 Account=(null) QOS=(null)
   JobState=PENDING Reason=BeginTime Dependency=(null)
   Requeue=1 Restarts=1 BatchFlag=1 Reboot=0 ExitCode=0:0
   RunTime=00:00:00 TimeLimit=2-00:00:00 TimeMin=N/A
   Partition=lrz-v100x2 AllocNode:Sid=localhost:12010
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList=
   BatchHost=n2
   Command=/tmp/job.sh JobState=FAILED
   WorkDir=/tmp/my runs
   Comment=hlrp:tok1 more
   StdErr=/tmp/my runs/2.err
   StdIn=/dev/null
   StdOut=/tmp/my runs/2.out
   Power=

JobId=7 ArrayJobId=3 ArrayTaskId=0 ArrayTaskThrottle=1 JobName=array
   JobState=FAILED Reason=NonZeroExitCode Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=3:0
";

    #[test]
    fn a_job_s_details_keep_values_with_spaces() {
        let jobs = JobDetails::parse(DETAILS, None);
        let [first, second] = &jobs[..] else { panic!("two jobs: {jobs:?}") };
        assert_eq!((first.id.as_str(), first.name.as_str()), ("2", "a b=c"));
        assert_eq!((&first.state, first.reason.as_str(), first.restarts), (&State::Pending, "BeginTime", 1));
        assert_eq!(first.stdout, Some(PathBuf::from("/tmp/my runs/2.out")));
        assert_eq!(first.work_dir, Some(PathBuf::from("/tmp/my runs")));
        assert_eq!((first.comment.as_str(), first.nodes.as_str()), ("hlrp:tok1 more", ""));
        assert_eq!(second.id, "3_0");
        assert_eq!(second.exit, Some(Exit { code: 3, signal: 0 }));
        assert_eq!(JobDetails::parse("slurm_load_jobs error: Unable to contact slurm controller\n", None), []);
    }

    #[test]
    fn limits_come_from_the_configuration_and_the_accounts() {
        let config = "Configuration data as of 2026-11-28T02:51:04\nAccountingStorageType   = accounting_storage/slurmdbd\n\
            ClusterName             = lrz\nMaxArraySize            = 1001\nMaxJobCount             = 10000\n";
        let mut limits = Limits::parse(config);
        assert_eq!((limits.max_array_size, limits.max_submit()), (Some(1001), Vec::new()));
        assert!(limits.has_accounting);
        limits.add_associations("100\n\n50\n");
        limits.add_qos("normal|\nmcml|20\n");
        let of_user = MaxSubmit { num_jobs: 50, qos: None };
        let of_qos = MaxSubmit { num_jobs: 20, qos: Some("mcml".into()) };
        assert_eq!(limits.max_submit(), [of_user, of_qos], "`normal` has no limit");
        assert!(!Limits::parse("AccountingStorageType = accounting_storage/none\n").has_accounting);
    }
}
