//! One dataset bound to its configuration: which episodes, cameras, states and actions are used, and how one sample is read.

mod layout;
mod lerobot;
mod mixture;
mod rows;

pub use layout::SampleLayout;
pub use mixture::{CacheProgress, Mixture, Split};
pub use rows::SampleRows;

use crate::{
    DataError, FrameStore, LoadError,
    anchors::held_out_positions,
    request::{EpisodeSpan, Request},
};
use hlrp_schema::{RequestConfig, SourceConfig};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// State or action of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VectorKey {
    /// Feature key.
    pub key: String,
    /// Entries per row.
    pub width: usize,
}

/// One dataset bound to its configuration.
pub struct Source {
    pub(crate) name: String,
    pub(crate) fps: f64,
    pub(crate) request: Request,
    pub(crate) rows: Arc<dyn SampleRows>,
    /// Role to frames.
    pub(crate) cameras: BTreeMap<String, Arc<dyn FrameStore>>,
    pub(crate) state: Option<VectorKey>,
    pub(crate) action: Option<VectorKey>,
    train: Vec<EpisodeSpan>,
    validation: Vec<EpisodeSpan>,
}

impl Source {
    /// Binds the rows and frames of a dataset to `config`. `cameras` holds the frames of every role of `config.cameras`.
    ///
    /// # Errors
    /// A chosen episode or feature does not exist, or an offset is not a whole number of frames.
    pub fn new(
        name: &str,
        config: &SourceConfig,
        request: &RequestConfig,
        rows: Arc<dyn SampleRows>,
        cameras: BTreeMap<String, Arc<dyn FrameStore>>,
    ) -> Result<Self, DataError> {
        let fps = rows.fps();
        let spans = chosen_episodes(name, config, rows.as_ref())?;
        let first_row = spans.first().map(|span| span.from_row);
        let (train, validation) = split_episodes(name, config, spans)?;
        let vector = |key: &Option<String>| -> Result<Option<VectorKey>, DataError> {
            let Some(key) = key else { return Ok(None) };
            let width = rows.vector_width(key)?;
            if let Some(row) = first_row {
                rows.read_vectors(key, &[row], &mut vec![0.0; width])?; // what the files lack is refused before a run begins
            }
            Ok(Some(VectorKey { key: key.clone(), width }))
        };
        Ok(Self {
            name: name.to_owned(),
            fps,
            request: Request::resolve(request, fps, name)?,
            state: vector(&config.state_key)?,
            action: vector(&config.action_key)?,
            rows,
            cameras,
            train,
            validation,
        })
    }

    /// Episodes of one split, in the dataset's order.
    #[must_use]
    pub fn episodes(&self, split: Split) -> &[EpisodeSpan] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }

    /// Seconds between the first and the last image at `rows`.
    pub(crate) fn seconds_between(&self, rows: &[u64]) -> f64 {
        match (rows.first(), rows.last()) {
            (Some(&first), Some(&last)) => (last as f64 - first as f64) / self.fps,
            _ => 0.0,
        }
    }
}

/// The episodes that the configuration asks for, in the dataset's order.
pub(crate) fn chosen_episodes(
    name: &str,
    config: &SourceConfig,
    rows: &dyn SampleRows,
) -> Result<Vec<EpisodeSpan>, DataError> {
    let all = rows.episodes();
    let Some(wanted) = &config.episodes else { return Ok(all) };
    let key = format!("data.sources.{name}.episodes");
    let unique: BTreeSet<u64> = wanted.iter().copied().collect();
    if unique.len() != wanted.len() {
        return Err(LoadError::setting(&key, "an episode is listed twice", "list each episode once").into());
    }
    let by_index: HashMap<u64, EpisodeSpan> = all.iter().map(|span| (span.episode, *span)).collect();
    unique
        .iter()
        .map(|episode| {
            by_index.get(episode).copied().ok_or_else(|| {
                let hint = format!("the dataset has {} episodes, counted from 0", all.len());
                LoadError::setting(&key, &format!("there is no episode {episode}"), &hint).into()
            })
        })
        .collect()
}

/// Splits by episode.
fn split_episodes(
    name: &str,
    config: &SourceConfig,
    spans: Vec<EpisodeSpan>,
) -> Result<(Vec<EpisodeSpan>, Vec<EpisodeSpan>), DataError> {
    let num_held_out = usize::try_from(config.num_val_episodes).unwrap_or(usize::MAX);
    if num_held_out >= spans.len() {
        let problem = format!("{num_held_out} of {} episodes leave none to train on", spans.len());
        let hint = "hold out fewer episodes, or put more into data.sources.<name>.episodes";
        return Err(LoadError::setting(&format!("data.sources.{name}.num_val_episodes"), &problem, hint).into());
    }
    let mut held_out = held_out_positions(spans.len(), num_held_out).peekable();
    let (mut train, mut validation) =
        (Vec::with_capacity(spans.len() - num_held_out), Vec::with_capacity(num_held_out));
    for (position, span) in spans.into_iter().enumerate() {
        if held_out.next_if_eq(&position).is_some() {
            validation.push(span);
        } else {
            train.push(span);
        }
    }
    Ok((train, validation))
}
