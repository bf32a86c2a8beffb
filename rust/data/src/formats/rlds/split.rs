//! Split strings as in TensorFlow Datasets: `train`, `train[:90%]`, `train[20:40]`, `train[-1:]`, `train[2shard]`, `train+val`, `all`.
//!
//! The rules and their rounding are those of TFDS 4.9 (`core/splits.py`): a bound in percent is rounded to the nearest episode, halves to
//! the even one; a negative bound counts from the end.

use super::info::Split;
use std::ops::Range;

/// Episodes of a split: index of the split, and which of its episodes.
pub(super) type Slice = (usize, Range<u64>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Episodes,
    Percent,
    Shards,
}

/// The episodes that `spec` names, in its order.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn resolve(spec: &str, splits: &[Split]) -> Result<Vec<Slice>, String> {
    if spec == "all" {
        return Ok(splits.iter().enumerate().map(|(index, split)| (index, 0..split.num_episodes())).collect());
    }
    spec.split('+').map(|part| slice(part.trim(), splits)).collect()
}

fn slice(spec: &str, splits: &[Split]) -> Result<Slice, String> {
    let (name, bounds) = match spec.split_once('[') {
        Some((name, rest)) => {
            let inner = rest.strip_suffix(']').ok_or_else(|| format!("`{spec}` has no closing bracket"))?;
            (name, Some(inner))
        }
        None => (spec, None),
    };
    let index =
        splits.iter().position(|split| split.name == name).ok_or_else(|| format!("there is no split `{name}`"))?;
    let split = &splits[index];
    let num_episodes = split.num_episodes();
    let Some(bounds) = bounds else { return Ok((index, 0..num_episodes)) };
    let unknown = || format!("`{spec}` is not a slice such as [10:20], [:90%] or [3shard]");
    let parts = bounds.split(':').map(|bound| parse(bound).ok_or_else(unknown)).collect::<Result<Vec<_>, _>>()?;
    let (from, to, unit) = match *parts.as_slice() {
        [Some((shard, Unit::Shards))] => (Some(shard), Some(shard + 1), Unit::Shards),
        [from, to] if from.is_some() || to.is_some() => {
            // The first bound with a unit decides.
            let with_unit =
                |bound: Option<(i64, Unit)>| bound.map(|(_, unit)| unit).filter(|unit| *unit != Unit::Episodes);
            let unit = with_unit(from).or(with_unit(to)).unwrap_or(Unit::Episodes);
            (from.map(|(value, _)| value), to.map(|(value, _)| value), unit)
        }
        _ => return Err(unknown()),
    };
    let total = num_episodes.cast_signed();
    let (from, to) = match unit {
        Unit::Episodes => (from.unwrap_or(0), to.unwrap_or(total)),
        Unit::Percent => {
            if [from, to].into_iter().flatten().any(|percent| percent.abs() > 100) {
                return Err(format!("`{spec}` has a bound beyond 100 %"));
            }
            (from.map_or(0, |percent| rounded(percent, total)), to.map_or(total, |percent| rounded(percent, total)))
        }
        Unit::Shards => {
            let num_shards = split.shard_lengths.len() as i64;
            // As Python's `sum(shard_lengths[:bound])`.
            let before = |bound: i64| {
                let end = if bound < 0 { (num_shards + bound).max(0) } else { bound.min(num_shards) };
                split.shard_lengths[..end as usize].iter().sum::<u64>().cast_signed()
            };
            let to = to.map(|bound| if bound <= 0 { num_shards + bound } else { bound });
            (from.map_or(0, before), to.map_or(total, before))
        }
    };
    if from.abs() > total || to.abs() > total {
        return Err(format!("`{spec}` goes beyond the {total} episodes of `{name}`"));
    }
    let from_start = |bound: i64| if bound < 0 { total + bound } else { bound };
    let (from, to) = (from_start(from), from_start(to));
    if from >= to {
        return Err(format!("`{spec}` has none of the {total} episodes of `{name}`"));
    }
    Ok((index, from.cast_unsigned()..to.cast_unsigned()))
}

/// A bound and its unit; the inner value is none for an empty bound.
fn parse(bound: &str) -> Option<Option<(i64, Unit)>> {
    if bound.is_empty() {
        return Some(None);
    }
    let (digits, unit) = if let Some(digits) = bound.strip_suffix('%') {
        (digits, Unit::Percent)
    } else if let Some(digits) = bound.strip_suffix("shard") {
        (digits, Unit::Shards)
    } else {
        (bound, Unit::Episodes)
    };
    let is_number = digits.strip_prefix('-').unwrap_or(digits).bytes().all(|byte| byte.is_ascii_digit());
    let value = digits.parse::<i64>().ok().filter(|value| is_number && value.unsigned_abs() < 1 << 48)?;
    Some(Some((value, unit)))
}

/// Python's `int(round(percent * total / 100.))`.
#[allow(clippy::cast_possible_truncation)] // below the number of episodes
fn rounded(percent: i64, total: i64) -> i64 {
    ((percent * total) as f64 / 100.0).round_ties_even() as i64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use crate::sampler::Permutation;

    fn split(name: &str, shard_lengths: &[u64]) -> Split {
        let shards = shard_lengths.iter().map(|_| String::new()).collect();
        Split { name: name.to_owned(), shard_lengths: shard_lengths.to_owned(), shards }
    }

    /// TFDS's rule in whole numbers: a percentage is rounded to the nearest episode, halves to the even one.
    fn expected(bound: Option<i64>, is_percent: bool, default: i64, total: i64) -> Option<i64> {
        let Some(bound) = bound else { return Some(default) };
        let exact_in_100ths = if is_percent { bound * total } else { bound * 100 };
        let (floor, rest) = (exact_in_100ths.div_euclid(100), exact_in_100ths.rem_euclid(100));
        let nearest = match rest {
            ..50 => floor,
            50 => floor + floor.rem_euclid(2),
            _ => floor + 1,
        };
        let is_inside = nearest.abs() <= total && !(is_percent && bound.abs() > 100);
        is_inside.then_some(if nearest < 0 { total + nearest } else { nearest })
    }

    #[test]
    fn two_hundred_random_slices_are_those_of_tfds() {
        let random = Permutation::new(1 << 40, [7, 11]);
        let mut num_valid = 0;
        for case in 0..200_u64 {
            let number = |nth: u64, below: u64| (random.get(8 * case + nth) % below).cast_signed();
            let total = 1 + number(0, 3000);
            let is_percent = number(1, 2) == 0;
            let range = if is_percent { 105 } else { total + 3 };
            let bound = |nth| (number(nth, 5) != 0).then(|| number(nth + 2, 2 * range.cast_unsigned()) - range);
            let (from, to) = (bound(2), bound(3));
            let text = |bound: Option<i64>| {
                bound.map_or(String::new(), |bound| format!("{bound}{}", if is_percent { "%" } else { "" }))
            };
            let spec = format!("train[{}:{}]", text(from), text(to));
            let splits = [split("val", &[4]), split("train", &[total.cast_unsigned()])];
            let found = resolve(&spec, &splits);
            let bounds = expected(from, is_percent, 0, total).zip(expected(to, is_percent, total, total));
            match bounds.filter(|(from, to)| from < to && spec != "train[:]") {
                Some((from, to)) => {
                    num_valid += 1;
                    let wanted = vec![(1, from.cast_unsigned()..to.cast_unsigned())];
                    assert_eq!(found, Ok(wanted), "{spec} of {total}");
                }
                None => assert!(found.is_err(), "{spec} of {total}: {found:?}"),
            }
        }
        assert!((50..200).contains(&num_valid), "{num_valid} of 200 are valid");
    }

    #[test]
    fn slices_by_shard_sums_and_all() {
        let splits = [split("train", &[3, 4, 5]), split("val", &[2])];
        let of = |spec: &str| resolve(spec, &splits).unwrap();
        assert_eq!(of("train[1shard]"), [(0, 3..7)]);
        assert_eq!(of("train[1shard:]"), [(0, 3..12)]);
        assert_eq!(of("train[:-1shard]"), [(0, 0..7)]);
        assert_eq!(of("train[-1shard:]"), [(0, 7..12)]);
        assert_eq!(of("train[:2]+val"), [(0, 0..2), (1, 0..2)]);
        assert_eq!(of("all"), [(0, 0..12), (1, 0..2)]);
        let long = "9".repeat(30);
        for bad in [
            "",
            "test",
            "train[",
            "train[]",
            "train[5]",
            "train[1:2:3]",
            "train[a:]",
            "train[:1e2]",
            "train[+1:]",
            "all[:5]",
            "train[5:5]",
            "train[:101%]",
            &format!("train[:{long}]"),
            "train+",
        ] {
            assert!(resolve(bad, &splits).is_err(), "{bad}");
        }
    }
}
