//! `sweep.params` makes runs: every combination, each with its own overrides, name and directory.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PROJECT, Tree, owned};
use hlrp_config::{SweepRun, compose, sweep, with_hint};

fn tree(params: &str) -> Tree {
    let text = format!(
        "experiment: {{name: base}}\nlogging: {{run_dir: 'runs/${{experiment.name}}'}}\na: {{lr: 1.0, task: x}}\n\
         seed: 0\nsweep:\n  params:\n{params}"
    );
    Tree::new(&[("config", &text)])
}

fn runs(tree: &Tree, overrides: &[&str]) -> Vec<SweepRun> {
    sweep(&PROJECT, |_| Ok(()), tree.root(), "config", &owned(overrides)).unwrap_or_else(|error| panic!("{error}"))
}

/// The values of `keys` in each run, joined by blanks.
fn values(runs: &[SweepRun], keys: &[&str]) -> Vec<String> {
    let line = |run: &SweepRun| {
        let value = |key: &&str| run.composed.tree().get(key).unwrap().summary();
        keys.iter().map(value).collect::<Vec<_>>().join(" ")
    };
    runs.iter().map(line).collect()
}

#[test]
fn lists_and_text_with_commas_make_all_combinations_the_last_key_fastest() {
    let tree = tree("    a.lr: 3e-4,1e-5\n    seed: [7, 8]\n");
    let runs = runs(&tree, &[]);
    assert_eq!(values(&runs, &["a.lr", "seed"]), ["0.0003 7", "0.0003 8", "1e-05 7", "1e-05 8"]);
    assert_eq!(
        values(&runs, &["logging.run_dir"]),
        ["lr3e4_seed7", "lr3e4_seed8", "lr1e5_seed7", "lr1e5_seed8"].map(|suffix| format!("runs/base_{suffix}"))
    );
}

#[test]
fn the_overrides_of_a_run_give_the_run() {
    let tree = tree("    a.task: [one, 'two, three', \"it's\", '\\${x}', 1e-4, null, [1, b]]\n    seed: [1]\n");
    for run in runs(&tree, &["a.lr=2"]) {
        let again = compose(&PROJECT, tree.root(), "config", &run.overrides).unwrap();
        assert_eq!(again.tree().to_json(), run.composed.tree().to_json(), "{:?}", run.overrides);
        assert_eq!(
            sweep(&PROJECT, |_| Ok(()), tree.root(), "config", &run.overrides).unwrap().len(),
            1,
            "a run of a sweep is none itself"
        );
    }
}

#[test]
fn values_of_the_sweep_win_over_overrides_and_a_name_given_as_an_override_stays_in_front() {
    let tree = tree("    a.lr: [1, 2]\n");
    let runs = runs(&tree, &["a.lr=9", "experiment.name=mine"]);
    assert_eq!(values(&runs, &["a.lr", "experiment.name"]), ["1 mine_lr1", "2 mine_lr2"]);
}

#[test]
fn a_sweep_may_come_from_the_command_line_in_both_forms() {
    let tree = tree("    {}\n");
    let nested = runs(&tree, &["+sweep.params.a.lr=[1,2]"]);
    let flat = runs(&tree, &["+sweep.params={a.lr: '1,2'}"]);
    assert_eq!(values(&nested, &["a.lr"]), ["1", "2"]);
    assert_eq!(values(&flat, &["a.lr"]), ["1", "2"]);
}

#[test]
fn groups_are_swept_like_keys() {
    let tree = Tree::new(&[
        ("config", "defaults:\n  - g: a\n  - _self_\nexperiment: {name: e}\nsweep: {params: {g: [a, b]}}\n"),
        ("g/a", "x: 1\n"),
        ("g/b", "x: 2\n"),
    ]);
    assert_eq!(values(&runs(&tree, &[]), &["g.x", "experiment.name"]), ["1 e_ga", "2 e_gb"]);
}

#[test]
fn a_single_combination_keeps_the_name() {
    let tree = tree("    seed: 5\n");
    assert_eq!(values(&runs(&tree, &[]), &["seed", "experiment.name"]), ["5 base"]);
}

#[test]
fn without_a_sweep_there_is_one_run_with_the_overrides_as_typed() {
    let tree = tree("    null\n");
    let runs = runs(&tree, &["seed=3"]);
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].overrides, ["seed=3"]);
}

#[test]
fn names_that_depend_on_a_swept_key_follow_it() {
    let tree =
        Tree::new(&[("config", "experiment: {name: 'run_${seed}'}\nseed: 0\nsweep: {params: {seed: [1, 2]}}\n")]);
    assert_eq!(values(&runs(&tree, &[]), &["experiment.name"]), ["run_1_seed1", "run_2_seed2"]);
}

#[test]
fn errors_of_a_sweep_are_named() {
    let error = |params: &str, overrides: &[&str]| {
        with_hint(&sweep(&PROJECT, |_| Ok(()), tree(params).root(), "config", &owned(overrides)).unwrap_err())
    };
    assert!(error("    a.lrr: [1, 2]\n", &[]).contains("did you mean 'a.lr'?"));
    let text = error("    nowhere: [1, 2]\n", &[]);
    assert!(text.contains("unknown key 'nowhere' in sweep.params") && !text.contains("sweep.params.nowhere"), "{text}");
    let text = error("    seed: [1, 2, 1]\n", &[]);
    assert!(text.contains("'seed' has the value 1 twice") && text.contains("config.yaml:7"), "{text}");
    let text = error("    seed: []\n", &[]);
    assert!(text.contains("'seed' has no value") && text.contains("config.yaml:7"), "{text}");
    assert!(error("    seed: '1,,2'\n", &[]).contains("'seed' has an empty value"));
    let text = error("    seed: [1, 2]\n", &["logging.run_dir=x"]);
    assert!(text.contains("two runs of the sweep would write x") && text.contains("command line: logging"), "{text}");
    assert!(error("    5\n", &[]).contains("expected keys with their values, found 5"));
    let numbers = (0..101).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    let many: String = ["seed", "a.lr"].map(|key| format!("    {key}: [{numbers}]\n")).concat();
    assert!(error(&many, &[]).contains("more than 10000 combinations"));
}
