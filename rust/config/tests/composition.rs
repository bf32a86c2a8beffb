//! Which file wins, and where its values go.

#![allow(clippy::unwrap_used)]

mod common;

use common::Tree;

#[test]
fn the_order_is_primary_groups_experiment_command_line() {
    let tree = Tree::new(&[
        ("config", "defaults:\n  - _self_\n  - experiment: e\na: primary\nb: primary\nc: primary\nd: primary\n"),
        (
            "experiment/e",
            "# @package _global_\ndefaults:\n  - /g@_global_: o\n  - _self_\nc: experiment\nd: experiment\n",
        ),
        ("g/o", "b: group\nc: group\nd: group\n"),
    ]);
    assert_eq!(tree.json(&["d=line"]), r#"{"a":"primary","b":"group","c":"experiment","d":"line"}"#);
}

#[test]
fn sections_unite_and_lists_are_replaced() {
    let tree = Tree::new(&[
        ("config", "defaults:\n  - g: o\n  - _self_\ng:\n  list: []\n  section: {x: 1}\n"),
        ("g/o", "list: [1, 2]\nsection: {x: 0, y: 0}\n"),
    ]);
    assert_eq!(tree.json(&[]), r#"{"g":{"list":[],"section":{"x":1,"y":0}}}"#);
}

#[test]
fn packages_say_where_values_go() {
    let tree = Tree::new(&[
        ("config", "defaults:\n  - g: explicit_header\n  - g@p.q: plain\n  - g/inner: plain\n"),
        ("g/explicit_header", "# @package h.k\nx: 1\n"),
        ("g/plain", "x: 2\n"),
        ("g/inner/plain", "x: 3\n"),
    ]);
    assert_eq!(tree.json(&[]), r#"{"h":{"k":{"x":1}},"p":{"q":{"x":2}},"g":{"inner":{"x":3}}}"#);
}

#[test]
fn a_choice_reaches_groups_that_another_choice_brings_in() {
    let tree = Tree::new(&[
        ("config", "defaults:\n  - experiment: a\n"),
        ("experiment/a", "# @package _global_\nx: 1\n"),
        ("experiment/b", "# @package _global_\ndefaults:\n  - /model@model: small\n"),
        ("model/small", "dim: 1\n"),
        ("model/large", "dim: 9\n"),
    ]);
    assert_eq!(tree.json(&["model=large", "experiment=b"]), r#"{"model":{"dim":9}}"#);
    assert!(tree.error(&["model=large"]).contains("no defaults list chooses an option for 'model'"));
    assert_eq!(tree.json(&["+model=large"]), r#"{"x":1,"model":{"dim":9}}"#);
}

#[test]
fn an_experiment_overrides_the_choices_of_the_one_it_extends() {
    let tree = Tree::new(&[
        ("config", "defaults:\n  - experiment: child\n"),
        ("experiment/base", "# @package _global_\ndefaults:\n  - /model@model: small\n  - _self_\nname: base\n"),
        (
            "experiment/child",
            "# @package _global_\ndefaults:\n  - base\n  - _self_\n  - override /model: large\nname: child\n",
        ),
        ("model/small", "dim: 1\n"),
        ("model/large", "dim: 9\n"),
    ]);
    assert_eq!(tree.json(&[]), r#"{"model":{"dim":9},"name":"child"}"#);
    // The command line wins over the `override` entry.
    assert_eq!(tree.json(&["model=small"]), r#"{"model":{"dim":1},"name":"child"}"#);
}

#[test]
fn optional_files_may_be_missing_and_win_over_groups_when_they_are_there() {
    let files = [
        ("config", "defaults:\n  - cluster: c\n  - optional user_config: local\n"),
        ("cluster/c", "image: shared\n"),
        ("user_config/local", "# @package _global_\ncluster:\n  image: mine\n"),
    ];
    assert_eq!(Tree::new(&files[..2]).json(&[]), r#"{"cluster":{"image":"shared"}}"#);
    assert_eq!(Tree::new(&files).json(&[]), r#"{"cluster":{"image":"mine"}}"#);
}

#[test]
fn references_are_resolved_after_everything_is_merged() {
    let tree = Tree::new(&[(
        "config",
        "root: .\nruns: ${root}/runs\ntable: {small: 1, large: 2}\nrow: small\nvalue: ${table.${row}}\n",
    )]);
    assert_eq!(
        tree.json(&["root=/data", "row=large"]),
        r#"{"root":"/data","runs":"/data/runs","table":{"small":1,"large":2},"row":"large","value":2}"#
    );
}

#[test]
fn a_key_with_a_dot_is_one_key() {
    let tree = Tree::new(&[("config", "a: 1\ns:\n  a: 2\n  x.y: ${.a}\n  z.w: ${..a}\n")]);
    assert_eq!(tree.json(&[]), r#"{"a":1,"s":{"a":2,"x.y":2,"z.w":1}}"#);
}
