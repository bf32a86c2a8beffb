//! The language that chooses samples: a condition on each of some facts, all of which must hold.
//!
//! | value | holds where the fact |
//! |---|---|
//! | `bridge` | equals it |
//! | `[bridge, rt1]` | is one of them |
//! | `[">", 3]`, also `>=`, `<`, `<=`, `==`, `!=` | compares so |
//! | `[in, [3, 5]]` | is one of them |
//! | `[not_null]` | is known |
//!
//! A fact that is unknown fulfils no condition.

use hlrp_config::Problem;
use serde_json::Value;
use std::{cmp::Ordering, collections::BTreeMap};

/// What a condition may be about: the source of a sample, its instruction, its episode and frame, and the seconds between its two frames.
const FACTS: [&str; 5] = ["source", "task", "episode", "frame", "dt_s"];

/// A condition on one fact.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    OneOf(Vec<Value>),
    Not(Value),
    /// Compares with the value in one of these ways.
    Ordered(Value, &'static [Ordering]),
    NotNull,
}

/// Conditions on samples.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleFilter(Vec<(String, Condition)>);

impl SampleFilter {
    /// The filter that a section describes.
    ///
    /// # Errors
    /// An unknown fact or operator, or an operator without its value.
    pub fn of(section: &BTreeMap<String, Value>) -> Result<Self, Problem> {
        let condition = |(fact, value): (&String, &Value)| {
            if !FACTS.contains(&fact.as_str()) {
                let hint = format!("the facts of a sample are {}", FACTS.join(", "));
                return Err(Problem::new(fact, format!("unknown fact '{fact}'"), hint));
            }
            Ok((
                fact.clone(),
                Condition::of(value).map_err(|message| {
                    Problem::new(
                        fact,
                        message,
                        "give a value, a list of values, or an operator and its value such as [\">\", 3]",
                    )
                })?,
            ))
        };
        section.iter().map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a sample fulfils every condition; `fact` returns what is known of it, by name.
    pub fn matches(&self, fact: impl Fn(&str) -> Value) -> bool {
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
            "not_null" if items.len() == 1 => Ok(Self::NotNull),
            _ => Ok(Self::OneOf(items.clone())),
        }
    }

    fn holds(&self, fact: &Value) -> bool {
        if fact.is_null() {
            return false;
        }
        match self {
            Self::OneOf(values) => values.iter().any(|value| compare(fact, value) == Some(Ordering::Equal)),
            Self::Not(value) => compare(fact, value) != Some(Ordering::Equal),
            Self::Ordered(value, orders) => compare(fact, value).is_some_and(|order| orders.contains(&order)),
            Self::NotNull => true,
        }
    }
}

/// How two values compare; none for a number and a text.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.partial_cmp(&b),
        _ => a.as_str().zip(b.as_str()).map(|(a, b)| a.cmp(b)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use serde_json::json;

    fn filter(section: Value) -> Result<SampleFilter, Problem> {
        SampleFilter::of(&serde_json::from_value(section).unwrap())
    }

    #[test]
    fn every_condition_must_hold() {
        let sample = json!({"source": "bridge", "episode": 7, "dt_s": 0.5, "task": null});
        let fits = |section| filter(section).unwrap().matches(|fact| sample[fact].clone());
        for section in [
            json!({}),
            json!({"source": "bridge"}),
            json!({"source": ["rt1", "bridge"], "episode": [">", 6]}),
            json!({"episode": ["in", [3, 7]]}),
            json!({"episode": [">=", 7.0]}),
            json!({"source": ["!=", "rt1"]}),
            json!({"source": ["==", "bridge"], "dt_s": ["<", 1]}),
            json!({"source": ["not_null"]}),
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
        ] {
            assert!(!fits(section.clone()), "{section}");
        }
    }

    #[test]
    fn an_unknown_fact_or_a_lone_operator_is_named() {
        let problem = filter(json!({"robot": "widowx"})).unwrap_err();
        assert_eq!(problem.key(), Some("robot"));
        for section in [json!({"episode": [">"]}), json!({"episode": ["in", 3]}), json!({"episode": ["<=", [3]]})] {
            assert_eq!(filter(section).unwrap_err().key(), Some("episode"));
        }
    }
}
