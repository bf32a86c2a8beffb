//! Result tables, and telling a login node from a workstation.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use hlrp_track::{host::Place, table::ResultTable};
use std::path::Path;

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

#[test]
fn a_login_node_has_slurms_programs_and_no_job() {
    let sbatch = Some(Path::new("/usr/bin/sbatch"));
    let patterns = ["login*.lrz.de".to_owned()];
    let job = |id: &str| Some(id.to_owned());
    assert_eq!(Place::judge("box", &[], None, None), Place::Workstation);
    assert_eq!(Place::judge("login01.lrz.de", &patterns, job("7"), sbatch), Place::SlurmJob { id: "7".into() });
    assert!(matches!(Place::judge("box", &[], None, sbatch), Place::LoginNode { .. }));
    assert!(matches!(Place::judge("login01.lrz.de", &patterns, None, None), Place::LoginNode { .. }));
    assert_eq!(Place::judge("gpu7.lrz.de", &patterns, None, sbatch), Place::Workstation, "named login nodes decide");
    for other in ["login.lrz.de.evil", "xlogin1.lrz.de", "login"] {
        assert_eq!(Place::judge(other, &patterns, None, None), Place::Workstation, "{other}");
    }
}
