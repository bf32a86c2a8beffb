//! Findings, and how they are printed.

use crate::HINTS;
use anyhow::Result;
use hlrp_track::console::message_and_hints;
use serde::Serialize;
use std::{error::Error, fmt::Write};

/// Whether a finding prevents training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Nothing to report.
    Ok,
    /// Works, with a limitation.
    Note,
    /// Training cannot start here.
    Problem,
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    name: &'static str,
    status: Status,
    text: String,
    hint: Option<String>,
}

impl Finding {
    pub(crate) fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, text: text.into(), hint: None }
    }

    /// Nothing is wrong, and this is what to do next.
    pub(crate) fn advice(name: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, text: text.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn note(name: &'static str, text: impl Into<String>, hint: Option<&str>) -> Self {
        Self { name, status: Status::Note, text: text.into(), hint: hint.map(Into::into) }
    }

    pub(crate) fn problem(name: &'static str, text: impl Into<String>, hint: Option<&str>) -> Self {
        Self { name, status: Status::Problem, text: text.into(), hint: hint.map(Into::into) }
    }

    pub(crate) fn error(name: &'static str, error: &(dyn Error + 'static)) -> Self {
        let (text, hints) = message_and_hints(error, HINTS);
        Self { name, status: Status::Problem, text, hint: (!hints.is_empty()).then(|| hints.join("; ")) }
    }
}

/// All findings.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    /// Whether training can start here.
    pub(crate) fn is_healthy(&self) -> bool {
        self.findings.iter().all(|finding| finding.status != Status::Problem)
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    pub(crate) fn to_text(&self) -> String {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        let mut text = format!("hlrp {}", env!("CARGO_PKG_VERSION"));
        for Finding { name, status, text: found, hint } in &self.findings {
            let mark = match status {
                Status::Ok => ' ',
                Status::Note => '-',
                Status::Problem => '!',
            };
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{mark} {name:width$}  {found}");
            if let Some(hint) = hint {
                let _ = write!(text, "\n  {:width$}  hint: {hint}", "");
            }
        }
        text
    }
}
