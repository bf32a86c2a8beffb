//! Result tables, and telling a login node from a workstation.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use hlrp_track::{
    host::{Controller, Place, Signs},
    table::ResultTable,
};

fn table() -> ResultTable {
    ResultTable::new(["what", "value", "unit"]).row(["val/pixel_loss", "0.0123", ""]).row(["samples/s", "1234", "1/s"])
}

#[test]
fn text_is_aligned_with_numbers_to_the_right() {
    let want = " what              value   unit\n\
                ────────────────────────────────\n \
                val/pixel_loss   0.0123\n \
                samples/s          1234   1/s";
    assert_eq!(table().to_text(), want, "\n{}", table().to_text());
}

#[test]
fn markdown_is_a_table() {
    let markdown = table().to_markdown();
    let lines: Vec<&str> = markdown.lines().collect();
    assert_eq!(lines.len(), 4, "{markdown}");
    assert!(lines.iter().all(|line| line.starts_with('|') && line.ends_with('|')), "{markdown}");
    assert!(lines[1].chars().all(|c| "|-: ".contains(c)), "{markdown}");
}

fn signs(host: &str, sbatch: bool, has_gpu: bool) -> Signs {
    let sbatch = sbatch.then(|| "/usr/bin/sbatch".into());
    Signs { host: host.into(), job_id: None, sbatch, has_gpu }
}

#[test]
fn a_login_node_submits_jobs_has_no_gpu_and_is_no_compute_node() {
    let judge = |signs: Signs| Place::judge(&signs, None, || Controller::NotListed);
    assert_eq!(judge(signs("box", false, false)), Place::Workstation);
    assert_eq!(judge(signs("box", true, true)), Place::Workstation, "a workstation may submit jobs too");
    assert!(matches!(judge(signs("box", true, false)), Place::LoginNode { .. }));
    let inside_a_job = Signs { job_id: Some("7".into()), ..signs("box", true, false) };
    assert_eq!(judge(inside_a_job), Place::SlurmJob { id: "7".into() });
    let listed = Place::judge(&signs("box", true, false), None, || Controller::Listed);
    assert_eq!(listed, Place::Workstation, "a compute node");
}

#[test]
fn a_silent_controller_opens_no_login_node() {
    for has_gpu in [false, true] {
        let signs = signs("box", true, has_gpu);
        let place = Place::judge(&signs, None, || Controller::NoAnswer);
        let Place::LoginNode { reason } = place else { panic!("{signs:?}") };
        assert!(reason.contains("does not answer"), "{reason}");
    }
}

#[test]
fn named_login_nodes_are_refused_whatever_they_have() {
    let patterns = ["login*.lrz.de".to_owned()];
    let judge = |signs: Signs| Place::judge(&signs, Some(&patterns), || Controller::NotListed);
    assert!(matches!(judge(signs("login01.lrz.de", false, true)), Place::LoginNode { .. }));
    assert!(matches!(judge(signs("other", true, false)), Place::LoginNode { .. }), "names add to what shows");
    for other in ["login.lrz.de.evil", "xlogin1.lrz.de", "login", "gpu7.lrz.de"] {
        assert_eq!(judge(signs(other, true, true)), Place::Workstation, "{other}");
    }
    let job = Signs { job_id: Some("7".into()), ..signs("login01.lrz.de", true, false) };
    assert_eq!(judge(job), Place::SlurmJob { id: "7".into() });
}

#[test]
fn an_empty_list_says_that_no_host_is_a_login_node() {
    let place = Place::judge(&signs("box", true, false), Some(&[]), || panic!("the controller need not be asked"));
    assert_eq!(place, Place::Workstation);
}
