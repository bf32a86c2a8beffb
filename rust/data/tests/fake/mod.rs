//! A dataset in memory whose every value shows where it comes from.
#![allow(dead_code, unreachable_pub)] // each test file uses a part of it
#![allow(clippy::unwrap_used, non_snake_case)]

#[path = "../opened/mod.rs"]
pub mod opened;

use hlrp_data::check::{Depth, Findings, check_all};
use hlrp_data::formats::{Feature, FeatureKind};
use hlrp_data::{
    Batch, DataError, Dataset, Description, EpisodeSpan, FrameReader, FrameSize, FrameStore, Mixture, Source,
};
use hlrp_schema::{DeltaUnit, LoaderConfig, RequestConfig, SourceConfig, UniformOver};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Size of all frames, unless their dataset behaves otherwise.
pub const SIZE: FrameSize = FrameSize { height: 4, width: 6 };
/// Bytes of one frame.
pub const FRAME_BYTES: usize = 3 * 4 * 6;

/// What a fake dataset does when a row is read.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// Rows whose frame cannot be decoded.
    pub broken_rows: BTreeSet<u64>,
    /// Rows at which the reader panics.
    pub panic_rows: BTreeSet<u64>,
    /// Time that a read takes, longer for some rows than for others.
    pub delay: Duration,
    /// Images read so far, by all cameras.
    pub num_read: Arc<AtomicU64>,
    /// Size of all frames, instead of [`SIZE`].
    pub size: Option<FrameSize>,
}

/// A dataset in memory.
pub struct FakeDataset {
    pub spans: Vec<EpisodeSpan>,
    pub behaviour: Behaviour,
    pub description: Description,
}

impl FakeDataset {
    /// Episodes of these lengths, one after the other, with three state dims.
    pub fn new(lengths: &[u64]) -> Self {
        Self::with_state_dims(lengths, 3)
    }

    /// Episodes of these lengths, one after the other.
    pub fn with_state_dims(lengths: &[u64], state_dims: usize) -> Self {
        let mut from_row = 0;
        let spans: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(episode, length)| {
                let span = EpisodeSpan { episode: episode as u64, from_row, to_row: from_row + length };
                from_row += length;
                span
            })
            .collect();
        let vector = |dims| Feature {
            kind: FeatureKind::Vector,
            shape: vec![dims],
            dtype: "float32".to_owned(),
            names: Vec::new(),
        };
        let description = Description {
            format: "in memory".to_owned(),
            robot: None,
            fps: 10.0,
            is_fps_known: true,
            num_episodes: spans.len() as u64,
            num_frames: from_row,
            features: [("state".to_owned(), vector(state_dims)), ("action".to_owned(), vector(2))].into(),
            tasks: Vec::new(),
            statistics: BTreeMap::new(),
            fingerprint: "in memory".to_owned(),
        };
        Self { spans, behaviour: Behaviour::default(), description }
    }
}

/// The pixel value of a frame: differs between cameras and rows.
pub fn pixel(camera: u64, row: u64, offset: usize) -> u8 {
    (row.wrapping_mul(31) ^ camera.wrapping_mul(101) ^ offset as u64) as u8
}

impl Dataset for FakeDataset {
    fn describe(&self) -> &Description {
        &self.description
    }
    fn episodes(&self) -> Vec<EpisodeSpan> {
        self.spans.clone()
    }
    fn read_vectors(&self, key: &str, rows: &[u64], out_TN: &mut [f32]) -> Result<(), DataError> {
        let width = self.description.features[key].num_values();
        for (row, out_N) in rows.iter().zip(out_TN.chunks_exact_mut(width)) {
            for (n, out) in out_N.iter_mut().enumerate() {
                *out = *row as f32 + n as f32 / 10.0;
            }
        }
        Ok(())
    }
    fn task(&self, row: u64) -> Result<String, DataError> {
        let episode = self.spans.partition_point(|span| span.to_row <= row);
        Ok(format!("task of episode {episode}"))
    }
    fn frame_store(self: Arc<Self>, camera: &str, _size: Option<FrameSize>) -> Result<Box<dyn FrameStore>, DataError> {
        let camera = camera.trim_start_matches("cam").parse().unwrap();
        Ok(Box::new(FakeCamera { camera, behaviour: self.behaviour.clone() }))
    }
    fn check(self: Arc<Self>, depth: Depth, findings: &mut Findings) {
        check_all(&self, depth, findings);
    }
}

/// Frames of one camera in memory.
pub struct FakeCamera {
    pub camera: u64,
    pub behaviour: Behaviour,
}

impl FrameStore for FakeCamera {
    fn reader(&self, _max_open: usize) -> Result<Box<dyn FrameReader + '_>, DataError> {
        Ok(Box::new(FakeReader(self)))
    }
    fn size(&self) -> FrameSize {
        self.behaviour.size.unwrap_or(SIZE)
    }
}

struct FakeReader<'a>(&'a FakeCamera);

impl FrameReader for FakeReader<'_> {
    fn read(&mut self, rows: &[u64], out_TCHW: &mut [u8]) -> Result<(), DataError> {
        let behaviour = &self.0.behaviour;
        for (row, out) in rows.iter().zip(out_TCHW.chunks_exact_mut(self.0.size().frame_bytes())) {
            behaviour.num_read.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(behaviour.delay * (1 + row % 4) as u32);
            assert!(!behaviour.panic_rows.contains(row), "row {row} makes the decoder panic");
            if behaviour.broken_rows.contains(row) {
                let path = PathBuf::from("videos/file-000.mp4");
                return Err(DataError::Io { path, source: std::io::Error::other(format!("row {row} is broken")) });
            }
            out.iter_mut().enumerate().for_each(|(offset, value)| *value = pixel(self.0.camera, *row, offset));
        }
        Ok(())
    }
}

/// Loader settings with batches of four.
pub fn loader_config(num_workers: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size: 4,
        anchors_per_clip: 1,
        labelled_fraction: None,
        uniform_over: UniformOver::Anchors,
        mixing_block: 8,
        num_workers,
        prefetch_batches: 3,
        memory_budget_mb: 64,
        table_cache_mb: 64,
        stream_cache_mb: 64,
        max_open_decoders: 4,
        max_bad_samples: 0,
    }
}

/// Offsets in frames: two images, one state, three actions.
pub fn request() -> RequestConfig {
    RequestConfig {
        unit: DeltaUnit::Frames,
        image_deltas: vec![0.0, 2.0],
        state_deltas: vec![0.0],
        action_deltas: vec![-1.0, 0.0, 4.0],
    }
}

/// A source with two cameras.
pub fn source_config(num_val_episodes: u64) -> SourceConfig {
    SourceConfig {
        cameras: [("primary".to_owned(), "cam0".to_owned()), ("wrist".to_owned(), "cam1".to_owned())].into(),
        state_key: Some("state".to_owned()),
        action_key: Some("action".to_owned()),
        num_val_episodes,
        ..opened::source(Path::new("in memory"), "cam0")
    }
}

/// Binds a dataset in memory to `config`.
pub fn source(name: &str, dataset: FakeDataset, config: &SourceConfig) -> Result<Source, DataError> {
    let behaviour = dataset.behaviour.clone();
    let camera = |camera| Arc::new(FakeCamera { camera, behaviour: behaviour.clone() }) as Arc<dyn FrameStore>;
    let cameras = config.cameras.keys().zip(0..).map(|(role, number)| (role.clone(), camera(number))).collect();
    Source::new(name, config, &request(), Arc::new(dataset), cameras)
}

/// One source of these episode lengths, one of five episodes held out.
pub fn mixture(lengths: &[u64], behaviour: Behaviour, loader: LoaderConfig) -> Arc<Mixture> {
    let mut dataset = FakeDataset::new(lengths);
    dataset.behaviour = behaviour;
    let num_val_episodes = lengths.len() as u64 / 5;
    let source = source("fake", dataset, &source_config(num_val_episodes)).unwrap();
    Arc::new(Mixture::new(vec![source], SIZE, loader).unwrap())
}

/// Source, episode and frame of every sample of a batch.
pub fn ids(batch: &Batch) -> Vec<(String, u64, u64)> {
    batch.meta.iter().map(|meta| (meta.source.clone(), meta.episode, meta.frame)).collect()
}
