//! Sweeps: one experiment whose `sweep.params` lists values for some keys, and the runs that they make.

mod values;

use crate::compose::compose;
use crate::composed::Composed;
use crate::node::{Node, Value, join};
use crate::origin::Origin;
use crate::overrides::write::write_value;
use crate::problem::{Hint, Problem, ProblemKind, Result};
use crate::project::Project;
use std::{collections::BTreeSet, path::Path};
use values::{Choice, choices};
use xxhash_rust::xxh3::xxh3_64;

/// Types and checks the composition of one run; accepts one that has no typed form.
pub type CheckRun = fn(&Composed) -> Result<()>;

/// A sweep has at most this many runs.
const MAX_RUNS: usize = 10_000;

/// Letters of a value in the name of a run, as long as they tell the runs apart.
const LABEL_LEN: usize = 8;

/// One run of a sweep.
#[derive(Debug, Clone)]
pub struct SweepRun {
    /// All overrides of its command line: those of the user, its values, its name.
    pub overrides: Vec<String>,
    /// What the sweep adds to `experiment.name`; none when there is a single run.
    pub suffix: Option<String>,
    /// Its configuration.
    pub composed: Composed,
}

/// The runs that `overrides` make: every combination of the values in `sweep.params`, the last key fastest, or the one
/// run where there is no sweep. Each is composed on its own, and has its own name and run directory.
///
/// # Errors
/// An invalid configuration of any run, or two runs with one directory.
pub fn sweep(
    project: &Project,
    check: CheckRun,
    root: &Path,
    config_name: &str,
    overrides: &[String],
) -> Result<Vec<SweepRun>> {
    let composed = compose(project, root, config_name, overrides)?;
    let Some(params) = params(project, &composed)? else {
        return Ok(vec![SweepRun { overrides: overrides.to_vec(), suffix: None, composed }]);
    };
    let combinations = product(&params);
    let suffixes = if combinations.len() == 1 { vec![None] } else { suffixes(&combinations) };
    let mut run_dirs = BTreeSet::new();
    let mut runs = Vec::new();
    for (combination, suffix) in combinations.into_iter().zip(suffixes) {
        let mut overrides = overrides.to_vec();
        overrides.extend(combination.iter().map(|(key, choice)| format!("{key}={}", choice.text)));
        overrides.push(format!("{}=null", project.sweep_params));
        let compose = |overrides: &[String]| {
            let composed = compose(project, root, config_name, overrides);
            composed.map_err(|problem| unknown_to_sweep(problem, project, &combination))
        };
        if let Some(suffix) = &suffix {
            let unnamed = compose(&overrides)?;
            overrides.extend(unnamed.tree().get(project.run_name).map(|name| named(project.run_name, name, suffix)));
        }
        let composed = compose(&overrides)?;
        check(&composed)?;
        if let Some(run_dir) = composed.tree().get(project.run_dir)
            && !run_dirs.insert(run_dir.summary())
        {
            let message = format!("two runs of the sweep would write {}", run_dir.summary());
            let hint = format!("let it contain ${{{}}}, to which a sweep adds what differs", project.run_name);
            return Err(Problem::new(project.run_dir, message, hint).at(&run_dir.origin));
        }
        runs.push(SweepRun { overrides, suffix, composed });
    }
    Ok(runs)
}

/// An unknown key of the sweep, by the place where the user wrote it.
fn unknown_to_sweep(problem: Problem, project: &Project, combination: &Combination<'_>) -> Problem {
    let is_swept = |key: &str| combination.iter().any(|(swept, _)| *swept == key);
    let Some(key) = problem.key().filter(|key| problem.kind() == ProblemKind::UnknownKey && is_swept(key)) else {
        return problem;
    };
    let message = format!("unknown key '{key}' in {}", project.sweep_params);
    let suggestion = Hint::hint(&problem).filter(|hint| !hint.starts_with('+'));
    let hint = suggestion.unwrap_or_else(|| "`hlrp config show` lists the keys".to_owned());
    Problem::of(ProblemKind::UnknownKey, message).about(key).hint(hint)
}

/// How many runs a composition makes.
///
/// # Errors
/// Values that cannot be swept over.
pub fn num_runs(project: &Project, composed: &Composed) -> Result<usize> {
    Ok(params(project, composed)?.map_or(1, |params| product(&params).len()))
}

fn named(key: &str, name: &Node, suffix: &str) -> String {
    let name = Value::Str(format!("{}_{suffix}", name.summary()));
    format!("{key}={}", write_value(&Node::new(name, Origin::command_line(key))))
}

/// Swept keys, each with its values.
type Params = Vec<(String, Vec<Choice>)>;
/// The value of each key in one run.
type Combination<'a> = Vec<(&'a str, &'a Choice)>;

/// The section's keys and values; none where there is no sweep.
fn params(project: &Project, composed: &Composed) -> Result<Option<Params>> {
    let key = project.sweep_params;
    let Some(node) = composed.tree().get(key) else { return Ok(None) };
    let mut params = Vec::new();
    match &node.value {
        Value::Null => return Ok(None),
        Value::Map(_) => collect(node, "", &mut params)?,
        _ => {
            let message = format!("expected keys with their values, found {}", node.summary());
            let error = Problem::of(ProblemKind::Type, message).about(key).at(&node.origin);
            return Err(error.hint("write key: [value, value] lines, or null for a single run"));
        }
    }
    let num_runs = params.iter().try_fold(1usize, |runs, (_, values)| runs.checked_mul(values.len()));
    match num_runs {
        _ if params.is_empty() => Ok(None),
        Some(num_runs) if num_runs <= MAX_RUNS => Ok(Some(params)),
        _ => {
            let message = format!("more than {MAX_RUNS} combinations");
            Err(Problem::new(key, message, "sweep over fewer values").at(&node.origin))
        }
    }
}

/// A section inside the section is a longer key: `a: {b: [1]}` is `a.b: [1]`.
fn collect(node: &Node, path: &str, params: &mut Params) -> Result<()> {
    for (key, child) in node.as_map().into_iter().flatten() {
        let key = join(path, key);
        match &child.value {
            Value::Map(_) => collect(child, &key, params)?,
            _ => params.push((key.clone(), choices(&key, child)?)),
        }
    }
    Ok(())
}

fn product(params: &[(String, Vec<Choice>)]) -> Vec<Combination<'_>> {
    params.iter().fold(vec![Vec::new()], |combinations, (key, choices)| {
        let mut longer = Vec::new();
        for combination in combinations {
            longer.extend(choices.iter().map(|choice| [combination.as_slice(), &[(key.as_str(), choice)]].concat()));
        }
        longer
    })
}

/// `lr3e4_seed7`: the last part of each key with its value, shortened as long as that tells the runs apart. Where even whole values do not, a
/// short hash of the combination does; it stays the same when the sweep gets other values.
fn suffixes(combinations: &[Combination<'_>]) -> Vec<Option<String>> {
    let suffix = |combination: &Combination<'_>, length: usize| -> String {
        let label = |(key, choice): &(&str, &Choice)| {
            let last = key.split('@').next().and_then(|key| key.rsplit(['.', '/']).next()).unwrap_or_default();
            format!("{last}{}", choice.label(length))
        };
        combination.iter().map(label).collect::<Vec<_>>().join("_")
    };
    let all = |length: usize| combinations.iter().map(|combination| suffix(combination, length)).collect::<Vec<_>>();
    let differ = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    let [short, long] = [all(LABEL_LEN), all(usize::MAX)];
    let names = match () {
        () if differ(&short) => short,
        () if differ(&long) => long,
        () => short.iter().zip(combinations).map(|(name, of)| format!("{name}_{:.6}", hash(of))).collect(),
    };
    names.into_iter().map(Some).collect()
}

/// Sixteen hexadecimal digits.
fn hash(combination: &Combination<'_>) -> String {
    let text: String = combination.iter().map(|(key, choice)| format!("{key}={}\n", choice.text)).collect();
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::values::Choice;

    fn suffixes(values: &[&str]) -> Vec<String> {
        let choices: Vec<Choice> = values.iter().map(|text| Choice { text: (*text).into() }).collect();
        let combinations: Vec<_> = choices.iter().map(|choice| vec![("a.task", choice)]).collect();
        super::suffixes(&combinations).into_iter().flatten().collect()
    }

    #[test]
    fn names_of_runs_differ_whatever_their_values() {
        assert_eq!(suffixes(&["3e-4", "1e-5"]), ["task3e4", "task1e5"]);
        assert_eq!(suffixes(&["mt10_only_a", "mt10_only_b"]), ["taskmt10_only_a", "taskmt10_only_b"]);
        assert_eq!(suffixes(&["push_the_block", "drawer_open"]), ["taskpush_the", "taskdrawer"]);
        assert_eq!(suffixes(&["/data/robots/first", "transformer"]), ["taskdata", "tasktransformer"]);
        assert_eq!(suffixes(&["0.0001234567", "[128,256,512]"]), ["task00001234567", "task128256"]);
        let hashed = suffixes(&["0.1", "01"]);
        assert!(hashed.iter().all(|name| name.starts_with("task01_") && name.len() == 13), "{hashed:?}");
        assert_eq!(suffixes(&["2.0", "20", "0.1", "01"])[2..], hashed, "whatever the other values are");
    }
}
