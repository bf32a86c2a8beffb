//! Folders of frames: a folder of PNG files for each episode, and what was recorded beside the images in `episodes.json`.
//!
//! ```text
//! episodes.json        {"fps": 10, "episodes": [{"task": "push", "state": [[0.1, …], …], "action": [[0.2, …], …]}, …]}
//! 000000/000000.png    the first frame of the first episode
//! ```

use super::fingerprint::Fingerprint;
use super::{Dataset, Description, Feature, FeatureKind, FeatureStats, Format};
use crate::check::{Depth, Findings, check_all};
use crate::error::DataError;
use crate::frames::{FrameSize, FrameStore};
use crate::images::{EncodedImage, EncodedImages, ImageStore};
use crate::request::EpisodeSpan;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const INDEX: &str = "episodes.json";
const CAMERA: &str = "image";
const STATE: &str = "state";
const ACTION: &str = "action";
const REPAIR: &str = "record the dataset again, or correct the file";

pub(super) const FORMAT: Format = Format {
    contents: "for folders of frames the one with episodes.json",
    is_format_of: |root| root.join(INDEX).exists(),
    open: |root, _options| Ok(Arc::new(FramesDataset::open(root)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    fps: f64,
    episodes: Vec<Episode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Episode {
    task: String,
    state: Vec<Vec<f32>>,
    action: Vec<Vec<f32>>,
}

struct FramesDataset {
    root: PathBuf,
    episodes: Vec<Episode>,
    spans: Vec<EpisodeSpan>,
    description: Description,
}

impl FramesDataset {
    fn open(root: &Path) -> Result<Self, DataError> {
        let path = root.join(INDEX);
        let text = fs::read(&path).map_err(DataError::io(&path))?;
        let index: Index =
            serde_json::from_slice(&text).map_err(|error| DataError::file(&path, error.to_string(), REPAIR))?;
        check(&index).map_err(|what| DataError::file(&path, what, REPAIR))?;
        let (mut spans, mut from_row) = (Vec::new(), 0);
        for (episode, recorded) in (0..).zip(&index.episodes) {
            let to_row = from_row + recorded.action.len() as u64;
            spans.push(EpisodeSpan { episode, from_row, to_row });
            from_row = to_row;
        }
        let description = describe(root, &text, &index, &spans)?;
        Ok(Self { root: root.to_owned(), episodes: index.episodes, spans, description })
    }

    /// The span of the episode with this row.
    fn span_of(&self, row: u64) -> Result<EpisodeSpan, DataError> {
        let position = self.spans.partition_point(|span| span.to_row <= row);
        self.spans.get(position).copied().ok_or_else(|| DataError::Dataset {
            root: self.root.clone(),
            what: format!("row {row} belongs to no episode"),
            hint: format!("rows are 0..{}", self.description.num_frames),
        })
    }
}

/// Every episode has frames, and every frame a state and an action of one width.
fn check(index: &Index) -> Result<(), String> {
    let Some(first) =
        index.episodes.first().and_then(|episode| Some((episode.state.first()?, episode.action.first()?)))
    else {
        return Err("it has no episode with frames".to_owned());
    };
    for (number, Episode { state, action, .. }) in index.episodes.iter().enumerate() {
        let is_regular = |rows: &[Vec<f32>], first: &Vec<f32>| rows.iter().all(|row| row.len() == first.len());
        if state.is_empty()
            || state.len() != action.len()
            || !is_regular(state, first.0)
            || !is_regular(action, first.1)
        {
            return Err(format!("episode {number} lacks a state or an action of a frame"));
        }
    }
    Ok(())
}

fn describe(root: &Path, text: &[u8], index: &Index, spans: &[EpisodeSpan]) -> Result<Description, DataError> {
    let format = "frames 1".to_owned();
    let mut fingerprint = Fingerprint::new(&format);
    fingerprint.add(text);
    for span in spans {
        fingerprint.add_folder(root, &folder_of(span.episode))?;
    }
    let first = root.join(folder_of(0)).join(file_of(0));
    let (width, height) = image::image_dimensions(&first)
        .map_err(|error| DataError::file(&first, format!("cannot be read ({error})"), REPAIR))?;
    let image = Feature {
        kind: FeatureKind::Camera,
        shape: vec![height as usize, width as usize, 3],
        dtype: "png".to_owned(),
        names: Vec::new(),
    };
    let mut features = BTreeMap::from([(CAMERA.to_owned(), image)]);
    let mut statistics = BTreeMap::new();
    for key in [STATE, ACTION] {
        let rows: Vec<&Vec<f32>> = index.episodes.iter().flat_map(|episode| vectors(episode, key)).collect();
        let feature = Feature {
            kind: FeatureKind::Vector,
            shape: vec![rows[0].len()],
            dtype: "float32".to_owned(),
            names: Vec::new(),
        };
        features.insert(key.to_owned(), feature);
        statistics.insert(key.to_owned(), statistics_of(&rows));
    }
    let mut tasks: Vec<String> = Vec::new();
    for Episode { task, .. } in &index.episodes {
        if !tasks.contains(task) {
            tasks.push(task.clone());
        }
    }
    Ok(Description {
        format,
        robot: None,
        fps: index.fps,
        is_fps_known: true,
        num_episodes: spans.len() as u64,
        num_frames: spans.last().map_or(0, |span| span.to_row),
        features,
        tasks,
        statistics,
        fingerprint: fingerprint.finish(),
    })
}

/// The states or the actions of an episode.
fn vectors<'a>(episode: &'a Episode, key: &str) -> &'a [Vec<f32>] {
    if key == STATE { &episode.state } else { &episode.action }
}

fn statistics_of(rows: &[&Vec<f32>]) -> FeatureStats {
    let of_column = |column: usize| -> [f64; 4] {
        let values: Vec<f64> = rows.iter().map(|row| f64::from(row[column])).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        [min, max, mean, variance.sqrt()]
    };
    let columns: Vec<[f64; 4]> = (0..rows[0].len()).map(of_column).collect();
    let named = ["min", "max", "mean", "std"].into_iter().enumerate();
    let mut values: BTreeMap<String, Vec<f64>> =
        named.map(|(index, name)| (name.to_owned(), columns.iter().map(|column| column[index]).collect())).collect();
    values.insert("count".to_owned(), vec![rows.len() as f64]);
    FeatureStats { values }
}

fn folder_of(episode: u64) -> String {
    format!("{episode:06}")
}

fn file_of(frame: u64) -> String {
    format!("{frame:06}.png")
}

impl Dataset for FramesDataset {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn check(self: Arc<Self>, depth: Depth, findings: &mut Findings) {
        check_all(&self, depth, findings);
    }

    fn episodes(&self) -> Vec<EpisodeSpan> {
        self.spans.clone()
    }

    fn read_vectors(&self, key: &str, rows: &[u64], out_TN: &mut [f32]) -> Result<(), DataError> {
        let Some(feature) = self.description.feature(key, FeatureKind::Vector) else {
            return Err(DataError::Feature {
                root: self.root.clone(),
                what: format!("has no numeric feature `{key}`"),
                hint: format!("there are {STATE}, {ACTION}"),
            });
        };
        for (&row, out_N) in rows.iter().zip(out_TN.chunks_exact_mut(feature.num_values())) {
            let span = self.span_of(row)?;
            let of_episode = vectors(&self.episodes[span.episode as usize], key);
            out_N.copy_from_slice(&of_episode[(row - span.from_row) as usize]);
        }
        Ok(())
    }

    fn task(&self, row: u64) -> Result<String, DataError> {
        Ok(self.episodes[self.span_of(row)?.episode as usize].task.clone())
    }

    fn frame_store(self: Arc<Self>, camera: &str, size: Option<FrameSize>) -> Result<Box<dyn FrameStore>, DataError> {
        let native = self.description.feature(camera, FeatureKind::Camera).and_then(Feature::frame_size);
        let Some(native) = native else {
            return Err(DataError::Feature {
                root: self.root.clone(),
                what: format!("has no camera `{camera}`"),
                hint: format!("there is {CAMERA}"),
            });
        };
        Ok(Box::new(ImageStore::new(Box::new(FrameFiles(self)), size.unwrap_or(native))))
    }

    fn storage_of(&self, _camera: &str) -> Result<String, DataError> {
        Ok("PNG files".to_owned())
    }
}

/// The frames as files.
struct FrameFiles(Arc<FramesDataset>);

impl EncodedImages for FrameFiles {
    fn image(&self, row: u64) -> Result<EncodedImage, DataError> {
        let span = self.0.span_of(row)?;
        let path = self.0.root.join(folder_of(span.episode)).join(file_of(row - span.from_row));
        let bytes = fs::read(&path).map_err(DataError::io(&path))?;
        Ok(EncodedImage { path, bytes })
    }

    fn failure(&self, path: &Path, row: u64, what: String, hint: &str) -> DataError {
        let (episode, first) = self.0.span_of(row).map_or((0, row), |span| (span.episode, span.from_row));
        let wanted_s = (row - first) as f64 / self.0.description.fps;
        DataError::Frame { path: path.to_owned(), episode, wanted_s, what, hint: hint.to_owned() }
    }
}
