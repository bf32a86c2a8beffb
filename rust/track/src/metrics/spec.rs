//! What a metric means: declared once by the task, written into `run.json`, read by tables, plots and summaries.

use crate::console::format_value;
use serde::{Deserialize, Serialize};

/// A metric of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSpec {
    /// Full name, such as `val/pixel_loss`.
    pub name: String,
    /// Short English label for tables and legends; empty for a detail that tables leave out.
    pub label: String,
    /// Which direction is better; none where neither is, as for a baseline.
    pub better: Option<Better>,
    /// The plot in which it is drawn over the steps.
    pub curve: Option<Curve>,
}

/// Which direction of a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Better {
    Lower,
    Higher,
}

/// A plot of curves over the steps of a run; metrics with the same `file` share one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Curve {
    /// File in the run's folder of plots.
    pub file: String,
    /// Above the plot.
    pub title: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Logarithmic vertical axis.
    pub log: bool,
}

impl MetricSpec {
    /// A metric that tables show as `label`.
    pub fn new(name: impl Into<String>, label: impl Into<String>) -> Self {
        Self { name: name.into(), label: label.into(), better: None, curve: None }
    }

    /// A metric that is recorded and not shown in tables.
    pub fn detail(name: impl Into<String>) -> Self {
        Self::new(name, "")
    }

    /// The label or, without one, the name in words: `train/pixel_loss` is "pixel loss, training".
    pub fn title(&self) -> String {
        if !self.label.is_empty() {
            return self.label.clone();
        }
        let (phase, name) = self.name.split_once('/').unwrap_or(("", &self.name));
        let name = name.replace('_', " ");
        match phase {
            "" => name,
            "train" => format!("{name}, training"),
            "val" => format!("{name}, validation"),
            other => format!("{name}, {other}"),
        }
    }

    /// Lower values are better.
    #[must_use]
    pub fn lower_is_better(self) -> Self {
        Self { better: Some(Better::Lower), ..self }
    }

    /// Higher values are better.
    #[must_use]
    pub fn higher_is_better(self) -> Self {
        Self { better: Some(Better::Higher), ..self }
    }

    /// Drawn in `curve`.
    #[must_use]
    pub fn drawn_in(self, curve: &Curve) -> Self {
        Self { curve: Some(curve.clone()), ..self }
    }
}

impl Curve {
    /// A plot with a linear vertical axis.
    pub fn new(file: &str, title: &str, y_label: &str) -> Self {
        Self { file: file.to_owned(), title: title.to_owned(), y_label: y_label.to_owned(), log: false }
    }

    /// The same plot with a logarithmic vertical axis.
    #[must_use]
    pub fn log(self) -> Self {
        Self { log: true, ..self }
    }
}

/// Label and value of every metric that tables show and that `value` knows, in declared order.
pub fn shown(specs: &[MetricSpec], value: impl Fn(&str) -> Option<f64>) -> Vec<(String, String)> {
    let in_tables = specs.iter().filter(|spec| !spec.label.is_empty());
    let row = |spec: &MetricSpec| Some((spec.label.clone(), format_value(&spec.name, value(&spec.name)?)));
    in_tables.filter_map(row).collect()
}
