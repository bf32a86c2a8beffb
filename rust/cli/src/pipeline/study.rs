//! The table of a study: each arm's metric over the seeds, and its difference to the control, seed by seed.

use super::state::{State, Status};
use crate::runs::Statistics;
use anyhow::Result;
use hlrp_schema::StudyConfig;
use hlrp_track::{
    metrics::{Better, FILE_NAME as METRICS, read_metrics},
    run::Manifest,
    table::ResultTable,
};
use std::collections::BTreeMap;

/// 97.5 % quantiles of Student's t distribution for 1, 2, … degrees of freedom; beyond them the normal distribution's.
const STUDENT: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
const NORMAL: f64 = 1.96;

/// What the finished runs of a study say.
pub(super) struct Findings<'a> {
    study: &'a StudyConfig,
    /// Of each arm, in their order: the metric by seed.
    values: Vec<BTreeMap<u64, f64>>,
    better: Better,
}

impl<'a> Findings<'a> {
    /// Reads the runs that are done.
    ///
    /// # Errors
    /// A file of a run is missing or damaged.
    pub(super) fn of(study: &'a StudyConfig, state: &State) -> Result<Self> {
        let (mut values, mut better) = (Vec::new(), Better::Lower);
        for arm in &study.arms {
            let mut by_seed = BTreeMap::new();
            for seed in &study.seeds {
                let name = study.directory(&arm.run, Some(*seed));
                let step = state.steps.iter().find(|step| step.name == name && step.status == Status::Done);
                let Some(run_dir) = step.and_then(|step| step.run_dir.as_ref()) else { continue };
                let rows = read_metrics(&run_dir.join(METRICS))?;
                if let Some(value) = rows.iter().rev().find_map(|row| row.get(&study.metric)) {
                    by_seed.insert(*seed, value);
                }
                let declared = Manifest::read(run_dir)?.metrics.into_iter().find(|spec| spec.name == study.metric);
                better = declared.and_then(|spec| spec.better).unwrap_or(better);
            }
            values.push(by_seed);
        }
        Ok(Self { study, values, better })
    }

    /// One row for each arm. Intervals are Student's, 95 %, over the seeds.
    pub(super) fn table(&self) -> ResultTable {
        let against = format!("against {}", self.study.control);
        let share = self.study.ceiling.as_ref().map(|ceiling| format!("of the gain of {ceiling}"));
        let columns =
            ["arm".to_owned(), "seeds".to_owned(), self.study.metric.clone(), against, "better in".to_owned()];
        let mut table = ResultTable::new(columns.into_iter().chain(share));
        let mean_gain = |name: &str| mean(&self.gains(self.position(name)?));
        let ceiling = self.study.ceiling.as_deref().and_then(mean_gain);
        let none = String::new;
        for (index, arm) in self.study.arms.iter().enumerate() {
            let own: Vec<f64> = self.values[index].values().copied().collect();
            let gains = self.gains(index);
            let is_control = arm.name == self.study.control;
            let differences: Vec<f64> = gains.iter().map(|gain| gain * self.sign()).collect();
            let num_better = gains.iter().filter(|gain| **gain > 0.0).count();
            let seeds = format!("{} of {}", own.len(), self.study.seeds.len());
            let compared = if is_control || gains.is_empty() {
                [none(), none()]
            } else {
                [with_interval(&differences, true), format!("{num_better} of {}", gains.len())]
            };
            let part = ceiling.zip(mean(&gains)).filter(|(ceiling, _)| *ceiling > 0.0 && !is_control);
            let part = part.map_or_else(none, |(ceiling, gain)| format!("{:.0} %", 100.0 * gain / ceiling));
            let row = [arm.name.clone(), seeds, with_interval(&own, false)].into_iter().chain(compared);
            table = table.row(row.chain(self.study.ceiling.is_some().then_some(part)));
        }
        table
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.study.arms.iter().position(|arm| arm.name == name)
    }

    /// How much better than the control an arm is, for each seed that both have.
    fn gains(&self, index: usize) -> Vec<f64> {
        let Some(control) = self.position(&self.study.control) else { return Vec::new() };
        let control = &self.values[control];
        let of_seed = |(seed, value): (&u64, &f64)| Some((value - control.get(seed)?) * self.sign());
        self.values[index].iter().filter_map(of_seed).collect()
    }

    /// 1 where higher is better.
    fn sign(&self) -> f64 {
        match self.better {
            Better::Higher => 1.0,
            Better::Lower => -1.0,
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    Statistics::of(values).map(|statistics| statistics.mean)
}

/// The mean and half of its 95 % interval; signed where it is a difference.
fn with_interval(values: &[f64], is_difference: bool) -> String {
    let Some(Statistics { mean, std, num }) = Statistics::of(values) else { return String::new() };
    let text = if is_difference { format!("{mean:+.4}") } else { format!("{mean:.4}") };
    let Some(std) = std else { return text };
    let quantile = STUDENT.get(num - 2).copied().unwrap_or(NORMAL);
    format!("{text} ± {:.4}", quantile * std / (num as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::with_interval;

    #[test]
    fn an_interval_is_students() {
        // The mean of 1, 2, 3 has a standard error of 1/√3, and t of two degrees of freedom is 4.303.
        assert_eq!(with_interval(&[1.0, 2.0, 3.0], false), "2.0000 ± 2.4843");
        assert_eq!(with_interval(&[-0.5], true), "-0.5000");
        assert_eq!(with_interval(&[], false), "");
    }
}
