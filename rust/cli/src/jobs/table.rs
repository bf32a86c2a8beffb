//! Jobs as rows of a table, in the columns of `hlrp jobs show`.

use hlrp_slurm::client::Job;

/// A heading and one line for each job, each ending with a newline; ids carry their cluster where one is named.
pub(super) fn table(jobs: &[&Job]) -> String {
    let row = |id: &str, partition: &str, name: &str, state: &str, elapsed: &str, limit: &str, last: &str| {
        format!("{id:>18.18} {partition:>30.30} {name:>20.20} {state:>8.8} {elapsed:>10.10} {limit:>10.10} {last}\n")
    };
    let mut text = row("JOBID", "PARTITION", "NAME", "STATE", "TIME", "TIME_LIMIT", "NODELIST(REASON)");
    for job in jobs {
        let id = job.cluster.iter().fold(job.id.clone(), |id, cluster| format!("{id};{cluster}"));
        let last = if job.nodes.is_empty() { format!("({})", job.reason) } else { job.nodes.clone() };
        text += &row(&id, &job.partition, &job.name, job.state.name(), &job.elapsed, &job.time_limit, &last);
    }
    text
}
