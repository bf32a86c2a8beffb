//! The report of `hlrp submit acceptance`, made on a compute node after the jobs that race.

use anyhow::Result;
use hlrp_slurm::{
    client::Slurm,
    in_job::{CLAIMS, EXIT, STARTED},
    plan::JobPlan,
    submission::{self, JobKind},
};
use hlrp_track::{console, fs::write_atomic, host::hostname, table::ResultTable};
use serde_json::Value;
use std::{fs, process::ExitCode};

/// File in the run directory.
const FILE_NAME: &str = "acceptance.md";

/// Gathers what the jobs left, asks Slurm from this node, and writes the report.
///
/// # Errors
/// A record is damaged or the report cannot be written.
pub(super) fn run(plan: &JobPlan) -> Result<ExitCode> {
    let mut rows: Vec<(String, bool, String)> = vec![claims(plan)?, slurm_commands(plan)];
    rows.extend(node_checks(plan)?);
    let mut table = ResultTable::new(["check", "result", "details"]);
    for (name, is_good, details) in &rows {
        table = table.row([name.as_str(), if *is_good { "ok" } else { "PROBLEM" }, details]);
    }
    let is_good = rows.iter().all(|(_, is_good, _)| *is_good);
    let title = format!("# Acceptance of `cluster={}`\n\nReported by {}.\n\n", plan.cluster, hostname());
    let verdict =
        if is_good { "The site does what a run needs." } else { "Something does not hold: see the rows with PROBLEM." };
    write_atomic(&plan.run_dir.join(FILE_NAME), format!("{title}{}\n\n{verdict}\n", table.to_markdown()))?;
    console::print(&table.to_text());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// No job ran without a claim of its own, and each claim after the first was made when Slurm said that the job before had ended.
fn claims(plan: &JobPlan) -> Result<(String, bool, String)> {
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(plan.submit_dir.join(folder)).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    };
    let claims = names(CLAIMS);
    let num_claims = claims.iter().filter(|name| name.parse::<u64>().is_ok()).count();
    let num_starts = names(EXIT).iter().filter(|name| name.ends_with(STARTED)).count();
    let num_jobs = submission::jobs(&plan.submit_dir)?.iter().filter(|job| job.kind == JobKind::Run).count();
    let has_loser = claims.iter().any(|name| name.starts_with("lost."));
    let (is_good, details) = match num_claims {
        0 => (false, "no job claimed the run: see the .err files".into()),
        _ if num_starts > num_claims => (false, format!("{num_starts} jobs ran with {num_claims} claims")),
        1 if has_loser => (true, format!("1 of {num_jobs} jobs ran; the other found the claim")),
        1 => (true, format!("1 of {num_jobs} jobs ran; the other was cancelled while it waited")),
        more => (true, format!("{more} of {num_jobs} jobs ran, each after the end of the one before")),
    };
    Ok(("claim".into(), is_good, details))
}

fn slurm_commands(plan: &JobPlan) -> (String, bool, String) {
    match Slurm::new(plan.resources.clusters.clone()).jobs() {
        Ok(jobs) => ("Slurm from a compute node".into(), true, format!("answers; {} jobs of this user", jobs.len())),
        Err(error) => {
            let details = format!("{error}: losers of a race end by themselves, and runs are not queued again");
            ("Slurm from a compute node".into(), false, details)
        }
    }
}

/// What the check inside the container found.
fn node_checks(plan: &JobPlan) -> Result<Vec<(String, bool, String)>> {
    let path = plan.submit_dir.join(format!("{}.preflight.report.json", plan.cluster));
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(vec![("program in the container".into(), false, "it did not run: see the .err files".into())]);
    };
    let report: Value = serde_json::from_str(&text)?;
    let text_of = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let row = |line: &Value| (text_of(line, "name"), line["status"] != "problem", text_of(line, "text"));
    Ok(report["findings"].as_array().into_iter().flatten().map(row).collect())
}
