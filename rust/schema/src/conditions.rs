//! The language that chooses samples and scenes: a condition on each of some facts, all of which must hold.
//!
//! | value | holds where the fact |
//! |---|---|
//! | `bridge` | equals it |
//! | `null` | is unknown |
//! | `[bridge, rt1]` | is one of them |
//! | `[">", 3]`, also `>=`, `<`, `<=`, `==`, `!=` | compares so |
//! | `[in, [3, 5]]` | is one of them |
//! | `[not_null]` | is known |
//!
//! A fact that is unknown fulfils no other condition than `null`.

use hlrp_config::Problem;
use serde_json::Value;
use std::{cmp::Ordering, collections::BTreeMap};

/// What is known of a sample: its source, its instruction, its episode and frame, and the seconds between its two frames.
const SAMPLE_FACTS: [&str; 5] = ["source", "task", "episode", "frame", "dt_s"];

/// A condition on one fact.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    OneOf(Vec<Value>),
    Not(Value),
    /// Compares with the value in one of these ways.
    Ordered(Value, &'static [Ordering]),
    NotNull,
}

/// Conditions by what they are about.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions(Vec<(String, Condition)>);

impl Conditions {
    /// The conditions that a section describes, on any facts.
    ///
    /// # Errors
    /// An operator without its value.
    pub fn of(section: &BTreeMap<String, Value>) -> Result<Self, Problem> {
        const HINT: &str = "give a value, a list of values, or an operator and its value such as [\">\", 3]";
        let condition = |(fact, value): (&String, &Value)| {
            let condition = Condition::of(value).map_err(|message| Problem::new(fact, message, HINT))?;
            Ok((fact.clone(), condition))
        };
        section.iter().map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// The conditions on samples that a section describes.
    ///
    /// # Errors
    /// As [`Conditions::of`], or a fact that samples do not have.
    pub fn on_samples(section: &BTreeMap<String, Value>) -> Result<Self, Problem> {
        if let Some(fact) = section.keys().find(|fact| !SAMPLE_FACTS.contains(&fact.as_str())) {
            let hint = format!("the facts of a sample are {}", SAMPLE_FACTS.join(", "));
            return Err(Problem::new(fact, format!("unknown fact '{fact}'"), hint));
        }
        Self::of(section)
    }

    /// Whether all of them hold; `fact` returns what is known, by name.
    pub fn hold(&self, fact: impl Fn(&str) -> Value) -> bool {
        self.0.iter().all(|(name, condition)| condition.holds(&fact(name)))
    }
}

impl Condition {
    fn of(value: &Value) -> Result<Self, String> {
        let Value::Array(items) = value else { return Ok(Self::OneOf(vec![value.clone()])) };
        let operator = items.first().and_then(Value::as_str).unwrap_or_default();
        let ordered = |orders| match &items[1..] {
            [value] if value.is_number() || value.is_string() => Ok(Self::Ordered(value.clone(), orders)),
            _ => Err(format!("'{operator}' needs one number or text")),
        };
        match operator {
            ">" => ordered(&[Ordering::Greater]),
            ">=" => ordered(&[Ordering::Greater, Ordering::Equal]),
            "<" => ordered(&[Ordering::Less]),
            "<=" => ordered(&[Ordering::Less, Ordering::Equal]),
            "==" => ordered(&[Ordering::Equal]),
            "!=" => match &items[1..] {
                [value] => Ok(Self::Not(value.clone())),
                _ => Err("'!=' needs one value".to_owned()),
            },
            "in" => match &items[1..] {
                [Value::Array(values)] => Ok(Self::OneOf(values.clone())),
                _ => Err("'in' needs a list of values".to_owned()),
            },
            "not_null" if items.len() <= 2 => Ok(Self::NotNull),
            _ => Ok(Self::OneOf(items.clone())),
        }
    }

    fn holds(&self, fact: &Value) -> bool {
        if fact.is_null() {
            return matches!(self, Self::OneOf(values) if values.contains(&Value::Null));
        }
        match self {
            Self::OneOf(values) => values.iter().any(|value| compare(fact, value) == Some(Ordering::Equal)),
            Self::Not(value) => compare(fact, value) != Some(Ordering::Equal),
            Self::Ordered(value, orders) => compare(fact, value).is_some_and(|order| orders.contains(&order)),
            Self::NotNull => true,
        }
    }
}

/// How two values compare; none where they are of different kinds.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use serde_json::json;

    fn conditions(section: Value) -> Result<Conditions, Problem> {
        Conditions::of(&serde_json::from_value(section).unwrap())
    }

    #[test]
    fn every_condition_must_hold() {
        let facts = json!({"source": "bridge", "episode": 7, "dt_s": 0.5, "task": null, "has_hand": true});
        let fits = |section| conditions(section).unwrap().hold(|fact| facts[fact].clone());
        for section in [
            json!({}),
            json!({"source": "bridge"}),
            json!({"source": ["rt1", "bridge"], "episode": [">", 6]}),
            json!({"episode": ["in", [3, 7]]}),
            json!({"episode": [">=", 7.0]}),
            json!({"source": ["!=", "rt1"]}),
            json!({"source": ["==", "bridge"], "dt_s": ["<", 1]}),
            json!({"source": ["not_null"], "episode": ["not_null", null]}),
            json!({"task": null, "robot": null}),
            json!({"task": ["push", null]}),
            json!({"has_hand": true}),
            json!({"has_hand": ["!=", false]}),
        ] {
            assert!(fits(section.clone()), "{section}");
        }
        for section in [
            json!({"source": "rt1"}),
            json!({"source": "bridge", "episode": ["<", 7]}),
            json!({"task": "push"}),
            json!({"task": ["!=", "push"]}),
            json!({"task": ["not_null"]}),
            json!({"source": [">", 3]}),
            json!({"source": null}),
            json!({"has_hand": false}),
            json!({"has_hand": 1}),
            json!({"robot": ["!=", "widowx"]}),
        ] {
            assert!(!fits(section.clone()), "{section}");
        }
    }

    #[test]
    fn an_unknown_fact_of_a_sample_or_a_lone_operator_is_named() {
        let unknown = [("robot".to_owned(), json!("widowx"))].into();
        assert_eq!(Conditions::on_samples(&unknown).unwrap_err().key(), Some("robot"));
        for section in [json!({"episode": [">"]}), json!({"episode": ["in", 3]}), json!({"episode": ["<=", [3]]})] {
            assert_eq!(conditions(section).unwrap_err().key(), Some("episode"));
        }
    }
}
