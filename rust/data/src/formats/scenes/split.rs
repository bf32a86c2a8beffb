//! Which scenes are held out.

use crate::request::EpisodeSpan;
use crate::sampler::Permutation;
use hlrp_schema::{SceneSplitConfig, SceneSplitMode};

/// Indices of the scenes of `spans` that are held out. `is_chosen` says which of them, by position, the conditions of the split choose; a
/// sample reaches `reach` frames.
///
/// # Errors
/// None is held out, or none is left.
pub(super) fn held_out(
    config: &SceneSplitConfig,
    spans: &[EpisodeSpan],
    is_chosen: impl Fn(usize) -> bool,
    reach: u64,
) -> Result<Vec<u64>, String> {
    let order = Permutation::new(spans.len() as u64, [config.seed, 0]);
    let shuffled = (0..spans.len() as u64).map(|position| order.get(position) as usize);
    let held_out: Vec<usize> = match config.mode {
        SceneSplitMode::Ratio => {
            let wanted = num_held_out(spans.len(), config.val_ratio.unwrap_or_default());
            return Ok(shuffled.take(wanted).map(|at| spans[at].episode).collect());
        }
        SceneSplitMode::Metadata => (0..spans.len()).filter(|&at| is_chosen(at)).collect(),
        SceneSplitMode::FixedCount => {
            let wanted = config.num_val_pairs.unwrap_or_default();
            let pairs = |at: usize| spans[at].num_frames().saturating_sub(reach);
            let mut num_pairs = 0;
            let is_needed = |at: &usize| {
                let is_needed = num_pairs < wanted;
                num_pairs += pairs(*at);
                is_needed
            };
            shuffled.filter(|&at| pairs(at) > 0).take_while(is_needed).collect()
        }
    };
    if held_out.is_empty() || held_out.len() == spans.len() {
        let what = if held_out.is_empty() { "none" } else { "all" };
        return Err(format!("{what} of its {} scenes in use would be held out", spans.len()));
    }
    Ok(held_out.into_iter().map(|at| spans[at].episode).collect())
}

/// A fraction of the scenes, rounded down, but at least one, and never the only one.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below the number of scenes
fn num_held_out(num_scenes: usize, ratio: f64) -> usize {
    let wanted = (num_scenes as f64 * ratio).floor() as usize;
    wanted.max(1).min(num_scenes.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use std::collections::BTreeSet;

    /// Scenes of 10 frames, with indices that are not their positions.
    fn spans(num_scenes: u64) -> Vec<EpisodeSpan> {
        let span = |at| EpisodeSpan { episode: 100 + at, from_row: 10 * at, to_row: 10 * at + 10 };
        (0..num_scenes).map(span).collect()
    }

    fn config(mode: SceneSplitMode, seed: u64) -> SceneSplitConfig {
        SceneSplitConfig { mode, seed, val_ratio: Some(0.25), val_filters: None, num_val_pairs: Some(20) }
    }

    fn of(config: &SceneSplitConfig, num_scenes: u64, reach: u64) -> Result<BTreeSet<u64>, String> {
        let held_out = held_out(config, &spans(num_scenes), |at| at % 2 == 1, reach)?;
        let distinct: BTreeSet<u64> = held_out.iter().copied().collect();
        assert_eq!(distinct.len(), held_out.len());
        assert!(distinct.iter().all(|episode| (100..100 + num_scenes).contains(episode)));
        Ok(distinct)
    }

    #[test]
    fn a_ratio_holds_out_a_fraction_that_the_seed_chooses() {
        let ratio = |seed, num_scenes| of(&config(SceneSplitMode::Ratio, seed), num_scenes, 5).unwrap();
        for (num_scenes, wanted) in [(1, 0), (2, 1), (3, 1), (8, 2), (11, 2), (40, 10)] {
            assert_eq!(ratio(1, num_scenes).len(), wanted, "{num_scenes} scenes");
        }
        assert_eq!(ratio(1, 40), ratio(1, 40));
        assert_ne!(ratio(1, 40), ratio(2, 40));
    }

    #[test]
    fn a_number_of_pairs_is_reached_with_whole_scenes() {
        let count = |reach| of(&config(SceneSplitMode::FixedCount, 3), 8, reach).map(|held_out| held_out.len());
        assert_eq!(count(0), Ok(2));
        assert_eq!(count(1), Ok(3), "nine pairs each");
        assert_eq!(count(8), Err("all of its 8 scenes in use would be held out".into()));
        assert_eq!(count(30), Err("none of its 8 scenes in use would be held out".into()));
    }

    #[test]
    fn conditions_hold_out_what_they_choose() {
        let chosen = of(&config(SceneSplitMode::Metadata, 0), 4, 1);
        assert_eq!(chosen, Ok([101, 103].into()));
        assert!(of(&config(SceneSplitMode::Metadata, 0), 1, 1).unwrap_err().starts_with("none"));
    }
}
