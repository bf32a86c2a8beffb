//! What an override does.

#![allow(clippy::unwrap_used)]

mod common;

use common::Tree;

fn tree() -> Tree {
    Tree::new(&[("config", "a: 1\ns: {x: 1, y: 2}\nlist: [1, 2]\nempty: null\n")])
}

fn value(argument: &str) -> String {
    let composed = tree().compose(&[&format!("a={argument}")]).unwrap_or_else(|error| panic!("{error}"));
    composed.tree().get("a").map(|node| node.to_json().to_string()).unwrap_or_default()
}

#[test]
fn values_are_typed_as_they_look() {
    let cases = [
        ("3", "3"),
        ("1e-4", "0.0001"),
        ("inf", r#""Infinity""#),
        ("-inf", r#""-Infinity""#),
        ("nan", r#""NaN""#),
        ("True", "true"),
        ("null", "null"),
        ("", r#""""#),
        ("text", r#""text""#),
        ("0x10", r#""0x10""#),
        ("007", r#""007""#),
        ("01:00:00", r#""01:00:00""#),
        ("/a b/c", r#""/a b/c""#),
        ("'1'", r#""1""#),
        (r#""it's""#, r#""it's""#),
        ("[1,[a,'b c']]", r#"[1,["a","b c"]]"#),
        ("{x: 1, y: {z: null}}", r#"{"x":1,"y":{"z":null}}"#),
        ("/ckpt/step=80.ckpt", r#""/ckpt/step=80.ckpt""#),
        ("int(3.7)", "3"),
        ("${s.x}", "1"),
    ];
    for (argument, json) in cases {
        assert_eq!(value(argument), json, "a={argument}");
    }
}

#[test]
fn a_plain_override_changes_what_exists_and_plus_adds_what_does_not() {
    assert!(tree().error(&["b=1"]).contains("unknown key 'b'"));
    assert!(tree().error(&["+a=2"]).contains("'a' exists already"));
    assert_eq!(tree().compose(&["+b.c=1"]).unwrap().tree().get("b.c").unwrap().to_json(), 1);
    assert_eq!(tree().compose(&["++a=2", "++b=3"]).unwrap().tree().get("a").unwrap().to_json(), 2);
}

#[test]
fn a_map_is_merged_into_the_section_and_a_list_replaces_the_list() {
    let composed = tree().compose(&["s={y: 5}", "list=[7]"]).unwrap();
    assert_eq!(composed.tree().get("s").unwrap().to_json().to_string(), r#"{"x":1,"y":5}"#);
    assert_eq!(composed.tree().get("list").unwrap().to_json().to_string(), "[7]");
    assert!(tree().error(&["s={z: 5}"]).contains("unknown key 's.z'"));
    assert!(tree().error(&["s=[1]"]).contains("a list cannot replace a section"));
}

#[test]
fn a_tilde_removes_and_can_insist_on_the_value() {
    assert!(tree().compose(&["~s"]).unwrap().tree().get("s").is_none());
    assert!(tree().compose(&["~s.x=1"]).unwrap().tree().get("s.x").is_none());
    assert!(tree().error(&["~s.x=2"]).contains("'s.x' is 1 and not 2"));
    assert!(tree().error(&["~nothing"]).contains("'nothing' cannot be deleted"));
}

#[test]
fn overrides_apply_in_their_order() {
    assert_eq!(tree().compose(&["a=2", "a=3"]).unwrap().tree().get("a").unwrap().to_json(), 3);
}
