//! Each error names the key or file and what set it, and says what to do.

#![allow(clippy::unwrap_used)]

mod common;

use common::Tree;

/// The error must contain every one of these texts.
fn assert_names(error: &str, texts: &[&str]) {
    for text in texts {
        assert!(error.contains(text), "'{text}' is not in: {error}");
    }
}

fn tree() -> Tree {
    Tree::new(&[
        ("config", "defaults:\n  - _self_\n  - experiment: tiny\nseed: 1\n"),
        ("experiment/tiny", "# @package _global_\ntraining:\n  optimizer:\n    lr: 1\n"),
        ("experiment/large", "# @package _global_\n"),
    ])
}

#[test]
fn misspelt_names_come_with_a_suggestion() {
    assert_names(&tree().error(&["experimnt=tiny"]), &["'experimnt'", "did you mean 'experiment'?"]);
    assert_names(&tree().error(&["experiment=tinny"]), &["no option 'tinny'", "did you mean 'tiny'?"]);
    let error = tree().error(&["training.optimizer.lrr=1"]);
    assert_names(&error, &["training.optimizer.lrr", "did you mean 'training.optimizer.lr'?"]);
    assert_names(&tree().error(&["experiment=a1b2c3"]), &["options of group 'experiment': large, tiny"]);
}

#[test]
fn groups_are_told_from_keys() {
    let tree = Tree::new(&[
        ("config", "defaults:\n  - g: a\nseed: 1\n"),
        ("g/a", "defaults:\n  - sub: x\n"),
        ("g/sub/x", "# @package _global_.g\nk: 1\n"),
        ("g/sub/y", "# @package _global_.g\nk: 2\n"),
    ]);
    assert_names(&tree.error(&["g.sub=y"]), &["'g/sub' is a group", "did you mean 'g/sub=y'?"]);
    assert_names(&tree.error(&["+g/sub=y"]), &["two options for 'g/sub'", "write 'g/sub=y' to change the option"]);
    assert_names(&tree.error(&["g=A1"]), &["did you mean 'a'?"]);
    assert_names(&tree.error(&["g/sub=X"]), &["did you mean 'x'?"]);
}

#[test]
fn arguments_that_are_not_overrides() {
    assert_names(&tree().error(&["seed"]), &["'seed'", "no '='"]);
    assert_names(&tree().error(&["seed=[1"]), &["seed=[1", "too early"]);
    assert_names(&tree().error(&["seed==x"]), &["'seed==x'", "two '='", "write key=value"]);
    assert_names(&tree().error(&["seed=18446744073709551616"]), &["does not fit 64 bits", "quote it"]);
    assert_names(&tree().error(&["seed=1,2"]), &["a comma outside of a list", "[1,2]"]);
    assert_names(&tree().error(&["a b=1"]), &["'a b'", "is not a key"]);
    assert_names(&tree().error(&["seed=choice(1,2)"]), &["choice"]);
}

#[test]
fn broken_files_are_named_with_their_line() {
    let tab = Tree::new(&[("config", "a:\n\tb: 1\n")]);
    assert_names(&tab.error(&[]), &["config.yaml:2", "indent with spaces"]);
    let twice = Tree::new(&[("config", "a: 1\nb: 2\na: 3\n")]);
    assert_names(&twice.error(&[]), &["key 'a' appears twice", "config.yaml:3"]);
    let list = Tree::new(&[("config", "- a\n")]);
    assert_names(&list.error(&[]), &["config.yaml", "contains one value instead of keys"]);
    let missing = Tree::new(&[("other", "a: 1\n")]);
    assert_names(&missing.error(&[]), &["config.yaml", "no primary file"]);
}

#[test]
fn broken_defaults_lists_are_named_with_their_line() {
    let cycle =
        Tree::new(&[("config", "defaults:\n  - g: a\n"), ("g/a", "defaults:\n  - b\n"), ("g/b", "defaults:\n  - a\n")]);
    assert_names(&cycle.error(&[]), &["g/a -> g/b -> g/a"]);
    let missing = Tree::new(&[("config", "defaults:\n  - g: b\n"), ("g/a", "x: 1\n")]);
    assert_names(&missing.error(&[]), &["group 'g' has no option 'b'", "config.yaml:2", "did you mean 'a'?"]);
    let unchosen = Tree::new(&[("config", "defaults:\n  - g: ???\n"), ("g/a", "x: 1\n")]);
    assert_names(&unchosen.error(&[]), &["no option is chosen for 'g'", "g=OPTION", "a"]);
    let early = Tree::new(&[("config", "defaults:\n  - override g: a\n  - g: a\n"), ("g/a", "x: 1\n")]);
    assert_names(&early.error(&[]), &["comes before another entry", "config.yaml:2"]);
}

#[test]
fn broken_references_are_named_with_their_line() {
    let circle = Tree::new(&[("config", "a: ${b}\nb: ${c}\nc: ${a}\n")]);
    assert_names(&circle.error(&[]), &["a -> b -> c -> a", "config.yaml:"]);
    let nothing = Tree::new(&[("config", "paths: {root: 1}\nb: ${paths.rot}\n")]);
    assert_names(&nothing.error(&[]), &["b: ${paths.rot}", "config.yaml:2", "did you mean 'paths.root'?"]);
    let variable = Tree::new(&[("config", "a: ${oc.env:HLRP_TEST_NOT_SET}\n")]);
    assert_names(&variable.error(&[]), &["HLRP_TEST_NOT_SET is not set", "config.yaml:1"]);
    let open = Tree::new(&[("config", "a: ${b\nb: 1\n")]);
    assert_names(&open.error(&[]), &["${b", "config.yaml:1"]);
    let null = Tree::new(&[("config", "root: null\nruns: ${root}/runs\n")]);
    assert_names(&null.error(&[]), &["runs: the reference ${root} inside text is null", "config.yaml:2"]);
    let unset = Tree::new(&[("config", "name: ???\nrun: x_${name}\n")]);
    assert_names(&unset.error(&[]), &["'name'", "must be set", "name=..."]);
    let unknown = Tree::new(&[("config", "a: ${no.such:1}\n")]);
    assert_names(&unknown.error(&[]), &["unknown resolver 'no.such'", "oc.env"]);
}

#[test]
fn endless_nesting_is_refused_and_not_followed() {
    let brackets = "[".repeat(100_000);
    let deep = Tree::new(&[("config", &format!("a: {brackets}\n"))]);
    assert_names(&deep.error(&[]), &["config.yaml:1"]);
    assert_names(&tree().error(&[&format!("seed={brackets}")]), &["more than 64 levels"]);
    let references = "${".repeat(100_000);
    assert_names(&tree().error(&[&format!("seed='{references}'")]), &["references inside each other"]);
}
