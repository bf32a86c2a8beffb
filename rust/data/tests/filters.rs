//! Anchors that show too little are left out of training: scores against a computation in the test, hysteresis, idle ends, the cache.
#![allow(clippy::unwrap_used, non_snake_case)]
#![allow(clippy::single_range_in_vec_init)] // stretches of one range

mod fake;

use fake::{FakeDataset, loader_config, request, source_config};
use hlrp_config::with_hint;
use hlrp_data::check::{Depth, Findings};
use hlrp_data::{
    DataError, Dataset, Description, DiskRules, EpisodeSpan, Filter, FrameReader, FrameSize, FrameStore, Verdict,
};
use hlrp_schema::{
    ActionFilterConfig, FilterBy, FilterConfig, MotionCameras, MotionFilterConfig, OverSteps, SourceConfig,
};
use std::path::Path;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

const SIZE: FrameSize = FrameSize { height: 16, width: 20 };

/// A bright square that is where `positions` says, and actions as large as its next move.
struct Moving {
    inner: FakeDataset,
    positions: Vec<usize>,
    num_read: AtomicU64,
}

impl Moving {
    fn new(episodes: &[&[usize]]) -> Arc<Self> {
        let lengths: Vec<u64> = episodes.iter().map(|positions| positions.len() as u64).collect();
        Arc::new(Self { inner: FakeDataset::new(&lengths), positions: episodes.concat(), num_read: AtomicU64::new(0) })
    }

    /// `[H,W]`: white in the square, black elsewhere.
    fn pixels_HW(&self, row: usize) -> Vec<u8> {
        let position = self.positions[row];
        let is_in =
            |at: usize| (4..10).contains(&(at / SIZE.width)) && (position..position + 6).contains(&(at % SIZE.width));
        (0..SIZE.height * SIZE.width).map(|at| if is_in(at) { 255 } else { 0 }).collect()
    }
}

impl Dataset for Moving {
    fn describe(&self) -> &Description {
        self.inner.describe()
    }
    fn episodes(&self) -> Vec<EpisodeSpan> {
        self.inner.episodes()
    }
    fn read_vectors(&self, _key: &str, rows: &[u64], out_TN: &mut [f32]) -> Result<(), DataError> {
        for (row, out_N) in rows.iter().zip(out_TN.chunks_exact_mut(2)) {
            let at = *row as usize;
            let next = self.positions.get(at + 1).copied().unwrap_or(self.positions[at]);
            out_N.copy_from_slice(&[next as f32 - self.positions[at] as f32, 9.0]);
        }
        Ok(())
    }
    fn task(&self, _row: u64) -> Result<String, DataError> {
        Ok(String::new())
    }
    fn frame_store(self: Arc<Self>, _camera: &str, _size: Option<FrameSize>) -> Result<Box<dyn FrameStore>, DataError> {
        Ok(Box::new(Frames(self)))
    }
    fn check(self: Arc<Self>, _depth: Depth, _findings: &mut Findings) {}
}

struct Frames(Arc<Moving>);

impl FrameStore for Frames {
    fn reader(&self, _max_open: usize) -> Result<Box<dyn FrameReader + '_>, DataError> {
        Ok(Box::new(Reader(&self.0)))
    }
    fn size(&self) -> FrameSize {
        SIZE
    }
}

struct Reader<'a>(&'a Moving);

impl FrameReader for Reader<'_> {
    fn read(&mut self, rows: &[u64], out_TCHW: &mut [u8]) -> Result<(), DataError> {
        for (row, out_CHW) in rows.iter().zip(out_TCHW.chunks_exact_mut(SIZE.frame_bytes())) {
            self.0.num_read.fetch_add(1, Ordering::Relaxed);
            out_CHW.copy_from_slice(&self.0.pixels_HW(*row as usize).repeat(3));
        }
        Ok(())
    }
}

fn config() -> FilterConfig {
    FilterConfig {
        gap: Some(2),
        motion: MotionFilterConfig {
            cameras: MotionCameras::First,
            short_side: 224,
            blur: 3,
            pixel_threshold: 0.03,
            smooth: 1,
            low: 0.05,
            high: 0.15,
        },
        action: ActionFilterConfig {
            num_steps: 1,
            delta_dims: vec![],
            exclude_dims: vec![1],
            over_steps: OverSteps::Max,
            threshold: 1.0,
            min_nonzero_ratio: 0.0,
        },
        trim_run: 0,
    }
}

fn verdicts(
    dataset: &Arc<Moving>,
    by: FilterBy,
    config: &FilterConfig,
    cache: &Path,
) -> Result<Vec<Verdict>, DataError> {
    let spans = dataset.episodes();
    let dataset: Arc<dyn Dataset> = Arc::<Moving>::clone(dataset);
    let filter = Filter {
        name: "robot",
        dataset: &dataset,
        cameras: vec!["cam0"],
        action_key: Some("action"),
        spans: &spans,
        by,
        config,
        image_gap: 5,
    };
    Ok(filter.scores(cache, &DiskRules::unlimited())?.verdicts().collect())
}

/// The score as its definition says it: luma, mean over a box of 3x3 with the border repeated, fraction of pixels that change.
fn score(dataset: &Moving, first: usize, last: usize) -> f32 {
    let blurred = |row: usize| -> Vec<f64> {
        let pixels_HW = dataset.pixels_HW(row);
        let at = |y: isize, x: isize| {
            let (y, x) = (y.clamp(0, SIZE.height as isize - 1), x.clamp(0, SIZE.width as isize - 1));
            f64::from(pixels_HW[y as usize * SIZE.width + x as usize]) / 255.0
        };
        let mean = |y: isize, x: isize| {
            (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))).map(|(dy, dx)| at(y + dy, x + dx)).sum::<f64>()
                / 9.0
        };
        (0..SIZE.height as isize).flat_map(|y| (0..SIZE.width as isize).map(move |x| mean(y, x))).collect()
    };
    let changed = blurred(first).iter().zip(blurred(last)).filter(|(a, b)| (**a - b).abs() >= 0.03).count();
    changed as f32 / (SIZE.height * SIZE.width) as f32
}

#[test]
fn motion_is_the_fraction_of_pixels_that_change() {
    let dataset = Moving::new(&[&[0, 0, 0, 1, 2, 4, 8, 8, 8], &[3, 5]]);
    let cache = tempfile::tempdir().unwrap();
    let verdicts = verdicts(&dataset, FilterBy::Motion, &config(), cache.path()).unwrap();
    let wanted: Vec<f32> = (0..7).map(|anchor| score(&dataset, anchor, anchor + 2)).collect();
    assert_eq!(verdicts[0].motion.as_ref().unwrap(), &wanted);
    assert!(wanted[0] == 0.0 && wanted[4] > wanted[2], "{wanted:?}");
    // An episode that is not longer than the gap has one anchor: its first frame against its last.
    assert_eq!(verdicts[1].motion.as_ref().unwrap(), &[score(&dataset, 9, 10)]);
    assert_eq!(verdicts[1].kept_rows(), [9..11], "frames after the last anchor belong to it");
}

#[test]
fn little_motion_counts_where_it_is_connected_to_more() {
    // Slow from 0 to 4, then still, then slow into a fast move.
    let dataset = Moving::new(&[&[0, 1, 2, 3, 4, 4, 4, 4, 4, 5, 6, 7, 11, 11, 11, 11]]);
    let cache = tempfile::tempdir().unwrap();
    let kept = |low, high| {
        let config = FilterConfig { motion: MotionFilterConfig { low, high, ..config().motion }, ..config() };
        verdicts(&dataset, FilterBy::Motion, &config, cache.path()).unwrap().remove(0)
    };
    let scores = kept(0.0, 0.0).motion.unwrap();
    let slow = f64::from(score(&dataset, 0, 2));
    let fast = f64::from(score(&dataset, 10, 12));
    assert!(fast > slow && slow > 0.0, "{scores:?}");
    // One frame of slow motion is less than two.
    assert_eq!(kept(0.01, fast).kept(), [7..12], "the first slow stretch has no fast part");
    assert_eq!(kept(slow, slow).kept(), [0..3, 8..12], "without hysteresis");
    assert_eq!(kept(0.0, 0.0).kept(), [0..14]);
    assert!(kept(1.0, 1.0).kept().is_empty());
}

#[test]
fn actions_count_alone_or_together_with_motion() {
    let dataset = Moving::new(&[&[0, 0, 2, 2, 2, 2, 4, 4, 4]]);
    let cache = tempfile::tempdir().unwrap();
    let of = |by| verdicts(&dataset, by, &config(), cache.path()).unwrap().remove(0);
    let action = of(FilterBy::Action);
    assert_eq!(action.action.as_ref().unwrap(), &[0.0, 2.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
    assert_eq!((action.kept(), action.motion), (vec![1..2, 5..6], None));
    let both = of(FilterBy::Both);
    assert_eq!(both.kept(), [1..2, 5..6]);
    assert_eq!((both.counts.num_by_action, both.counts.num_by_both, both.counts.num_by_motion), (2, 3, 0));
    let excluded = FilterConfig { action: ActionFilterConfig { exclude_dims: vec![2], ..config().action }, ..config() };
    let error = with_hint(&verdicts(&dataset, FilterBy::Action, &excluded, cache.path()).unwrap_err());
    assert!(
        error.starts_with("data.filter.action.exclude_dims: `action` of source `robot` has 2 dimensions"),
        "{error}"
    );
}

#[test]
fn idle_ends_are_trimmed_and_pauses_are_not() {
    let dataset = Moving::new(&[&[0, 2, 2, 2, 2, 4, 6, 8, 8, 8, 8, 8, 10, 12, 14, 14, 14, 14, 14]]);
    let cache = tempfile::tempdir().unwrap();
    let all = MotionFilterConfig { low: 0.0, high: 0.1, ..config().motion };
    let trimmed = |trim_run| {
        let config = FilterConfig { trim_run, motion: all.clone(), ..config() };
        verdicts(&dataset, FilterBy::Motion, &config, cache.path()).unwrap().remove(0)
    };
    let strong: Vec<bool> = trimmed(0).motion.unwrap().iter().map(|score| *score >= 0.1).collect();
    let runs: Vec<usize> = (0..strong.len() - 2).filter(|at| strong[*at..at + 3].iter().all(|s| *s)).collect();
    let verdict = trimmed(3);
    assert_eq!(verdict.kept(), [runs[0] as u64..*runs.last().unwrap() as u64 + 3], "{strong:?}");
    assert!(!strong[9], "the pause in the middle stays");
    assert_eq!(verdict.counts.num_trimmed + verdict.counts.num_kept, 17);
    assert_eq!(trimmed(10).kept(), [0..17], "no run is as long: nothing is trimmed");
}

#[test]
fn scores_are_computed_once_for_the_same_data_and_settings() {
    let dataset = Moving::new(&[&[0, 1, 2, 3, 4, 5, 6], &[0; 8]]);
    let cache = tempfile::tempdir().unwrap();
    let num_read = || dataset.num_read.swap(0, Ordering::Relaxed);
    let first = verdicts(&dataset, FilterBy::Both, &config(), cache.path()).unwrap();
    assert_eq!(num_read(), 15, "every frame once");
    let other = FilterConfig {
        motion: MotionFilterConfig { low: 0.2, high: 0.3, smooth: 5, ..config().motion },
        trim_run: 3,
        ..config()
    };
    assert_ne!(verdicts(&dataset, FilterBy::Both, &other, cache.path()).unwrap(), first);
    assert_eq!(verdicts(&dataset, FilterBy::Both, &config(), cache.path()).unwrap(), first);
    assert_eq!(num_read(), 0, "other thresholds use the same scores");
    let other = FilterConfig { gap: None, ..config() };
    verdicts(&dataset, FilterBy::Motion, &other, cache.path()).unwrap();
    assert_eq!(num_read(), 15, "another gap has other scores");

    let files: Vec<_> =
        std::fs::read_dir(cache.path().join("filters")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for file in files.iter().filter(|file| file.extension().unwrap() == "f32") {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[10] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    let error = with_hint(&verdicts(&dataset, FilterBy::Motion, &config(), cache.path()).unwrap_err());
    assert!(
        error.contains("/filters/robot-motion-") && error.contains("the scores are damaged\nhint: move"),
        "{error}"
    );
}

#[test]
fn a_source_without_a_filter_keeps_all_of_its_anchors() {
    let config = SourceConfig { filter: None, ..source_config(0) };
    let source = fake::source("robot", FakeDataset::new(&[9]), &config).unwrap();
    let mixture = hlrp_data::Mixture::new(vec![source], fake::SIZE, loader_config(1)).unwrap();
    assert_eq!(mixture.anchors(hlrp_data::Split::Train).len(), 7, "offsets {:?}", request().image_deltas);
}
