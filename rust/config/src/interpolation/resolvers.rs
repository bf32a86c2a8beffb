//! The resolvers: `now`, `oc.env`, and (in `resolve`, because it needs the tree) `oc.select`.

use crate::node::{Node, Value};
use crate::origin::Origin;
use crate::problem::{Problem, ProblemKind, Result};
use jiff::Zoned;
use std::{env, sync::LazyLock};

/// One time for the whole process, so that two keys with `${now:...}` agree.
static NOW: LazyLock<Zoned> = LazyLock::new(Zoned::now);

const NAMES: [&str; 3] = ["now", "oc.env", "oc.select"];

/// Evaluates a resolver with its typed arguments.
pub(super) fn call(name: &str, arguments: &[Value], path: &str) -> Result<Value> {
    match name {
        "now" => now(arguments, path),
        "oc.env" => variable(arguments, path),
        _ => {
            let error = Problem::of(ProblemKind::Interpolation, format!("{path}: unknown resolver '{name}'"));
            Err(error.hint(format!("resolvers: {}", NAMES.join(", "))))
        }
    }
}

pub(super) fn wrong_arguments(path: &str, name: &str, wanted: &str) -> Problem {
    let error = Problem::of(ProblemKind::Interpolation, format!("{path}: wrong arguments for ${{{name}:...}}"));
    error.hint(format!("it takes {wanted}"))
}

/// `${now:%Y-%m-%d}`: the local time at which the process started to resolve, in `strftime` format.
fn now(arguments: &[Value], path: &str) -> Result<Value> {
    let [Value::Str(format)] = arguments else {
        return Err(wrong_arguments(path, "now", "one time format, for example %Y-%m-%d"));
    };
    match jiff::fmt::strtime::format(format, &*NOW) {
        Ok(text) => Ok(Value::Str(text)),
        Err(error) => {
            let message = format!("{path}: '{format}' is not a time format: {error}");
            Err(Problem::of(ProblemKind::Interpolation, message).hint("for example %Y-%m-%d_%H-%M-%S"))
        }
    }
}

/// `${oc.env:NAME}` and `${oc.env:NAME,default}`: always text, or null where the default is null.
fn variable(arguments: &[Value], path: &str) -> Result<Value> {
    let (Value::Str(name), default) = (match arguments {
        [name] => (name, None),
        [name, default] => (name, Some(default)),
        _ => return Err(wrong_arguments(path, "oc.env", "a name and, if wanted, a default")),
    }) else {
        return Err(wrong_arguments(path, "oc.env", "the name of a variable"));
    };
    match (env::var(name), default) {
        (Ok(value), _) => Ok(Value::Str(value)),
        (Err(env::VarError::NotPresent), Some(Value::Null)) => Ok(Value::Null),
        (Err(env::VarError::NotPresent), Some(Value::Str(text))) => Ok(Value::Str(text.clone())),
        (Err(env::VarError::NotPresent), Some(default)) => {
            Ok(Value::Str(Node::new(default.clone(), Origin::command_line("")).summary()))
        }
        (Err(env::VarError::NotPresent), None) => {
            let message = format!("{path}: the environment variable {name} is not set");
            let hint = format!("set it, or give a default: ${{oc.env:{name},default}}");
            Err(Problem::of(ProblemKind::Interpolation, message).hint(hint))
        }
        (Err(env::VarError::NotUnicode(_)), _) => {
            let message = format!("{path}: the environment variable {name} is not UTF-8");
            Err(Problem::of(ProblemKind::Interpolation, message).hint("set it to plain text"))
        }
    }
}
