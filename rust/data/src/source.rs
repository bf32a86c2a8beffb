//! One dataset bound to its configuration: which episodes, cameras, states and actions are used.

use crate::anchors::held_out_positions;
use crate::error::DataError;
use crate::formats::{self, Dataset, Description, FeatureKind, existing_features};
use crate::frames::FrameStore;
use crate::request::{EpisodeSpan, LabelRequest, Request, TOLERANCE_S, Timing, frames_per_unit};
use hlrp_config::Problem;
use hlrp_schema::{RequestConfig, SourceConfig, SourceWeight};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    path::Path,
    sync::Arc,
};

/// Which episodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Those to train on.
    Train,
    /// Those held out.
    Validation,
}

impl Split {
    /// As texts name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Validation => "validation",
        }
    }
}

/// State, action or label of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VectorKey {
    /// Feature key.
    pub(crate) key: String,
    /// Entries per row.
    pub(crate) width: usize,
}

impl VectorKey {
    /// A numeric feature that the dataset has. What its files lack is refused here, by the row `first_row`, and not during a run.
    fn find(key: &str, dataset: &dyn Dataset, first_row: Option<u64>) -> Result<Self, DataError> {
        let feature = dataset.describe().feature(key, FeatureKind::Vector);
        let width = feature.map_or(0, |feature| feature.num_values());
        if let Some(row) = first_row {
            dataset.read_vectors(key, &[row], &mut vec![0.0; width])?;
        }
        Ok(Self { key: key.to_owned(), width })
    }
}

/// One dataset bound to its configuration.
#[derive(Clone)]
pub struct Source {
    pub(crate) name: String,
    pub(crate) request: Request,
    pub(crate) dataset: Arc<dyn Dataset>,
    /// Role to frames.
    pub(crate) cameras: BTreeMap<String, Arc<dyn FrameStore>>,
    pub(crate) state: Option<VectorKey>,
    pub(crate) action: Option<VectorKey>,
    /// In the order of their keys.
    pub(crate) labels: Vec<VectorKey>,
    pub(crate) weight: SourceWeight,
    /// The key that says where it is.
    pub(crate) place_key: &'static str,
    tolerance_s: f64,
    /// As [`Timing::frames_per_unit`].
    frames_per_unit: Option<f64>,
    /// Training episodes whose actions may be seen; none where all may.
    labelled: Option<Arc<BTreeSet<u64>>>,
    /// By episode the rows that may be anchors in training; all where there is no filter.
    kept: Option<Arc<HashMap<u64, Vec<Range<u64>>>>>,
    train: Arc<[EpisodeSpan]>,
    validation: Arc<[EpisodeSpan]>,
}

impl Source {
    /// Binds a dataset to `config`, a checked section whose features it has. `cameras` are the frames of every role of
    /// `config.cameras`.
    ///
    /// # Errors
    /// [`Problem`] with the key of an episode that the dataset does not have, or of an offset that is not a whole number of its
    /// frames; or a state or action that cannot be read.
    pub fn new(
        name: &str,
        config: &SourceConfig,
        request: &RequestConfig,
        dataset: Arc<dyn Dataset>,
        cameras: BTreeMap<String, Arc<dyn FrameStore>>,
    ) -> Result<Self, DataError> {
        let spans = chosen_episodes(name, config, &*dataset)?;
        let first_row = spans.first().map(|span| span.from_row);
        let (description, deltas) = (dataset.describe(), &request.image_deltas);
        let tolerance_s = config.tolerance_s.unwrap_or(TOLERANCE_S);
        let frames_per_unit = config.span.and_then(|span| frames_per_unit(span, deltas, description.fps));
        let timing = Timing { fps: description.fps, tolerance_s, source: name, frames_per_unit };
        let request = Request::resolve(request, deltas, &[], &timing)?;
        if let (Some(_), (back, on)) = (frames_per_unit, request.anchor_reach()) {
            let num_frames = on.abs_diff(back);
            let seconds = num_frames as f64 / description.fps;
            tracing::info!("{name}: from the first to the last image {num_frames} frames, {seconds:.3} s");
        }
        let (train, validation) = match (dataset.held_out(&spans, request.anchor_reach())?, &config.val_episodes) {
            (Some(held_out), _) => split_by(name, &held_out, spans)?,
            (None, Some(held_out)) => {
                require_episodes(name, "val_episodes", held_out, &spans, " in use")?;
                split_by(name, held_out, spans)?
            }
            (None, None) => split_episodes(name, config, spans)?,
        };
        let labelled = labelled_episodes(name, config, &train)?;
        let vector =
            |key: &Option<String>| key.as_ref().map(|key| VectorKey::find(key, &*dataset, first_row)).transpose();
        Ok(Self {
            name: name.to_owned(),
            request,
            state: vector(&config.state_key)?,
            action: vector(&config.action_key)?,
            labels: Vec::new(),
            dataset,
            cameras,
            weight: config.weight(),
            place_key: config.place_key(),
            tolerance_s,
            frames_per_unit,
            labelled: labelled.map(Arc::new),
            kept: None,
            train: train.into(),
            validation: validation.into(),
        })
    }

    /// The same episodes, cameras and vectors with other offsets and labels.
    ///
    /// # Errors
    /// [`Problem`] with the key of an offset that is not a whole number of frames, or of a label that the dataset lacks; or a label that
    /// cannot be read.
    pub(crate) fn with_request(
        &self,
        request: &RequestConfig,
        anchor_images: &[f64],
        labels: &LabelRequest,
    ) -> Result<Self, DataError> {
        let (found, name) = (self.description(), &self.name);
        let request = Request::resolve(request, anchor_images, &labels.deltas, &self.timing())?;
        labels.check(found, &format!("data.sources.{name}.{}", self.place_key))?;
        let first_row = self.train.first().map(|span| span.from_row);
        let keys: BTreeSet<&String> = labels.keys.iter().collect();
        let find = |key| VectorKey::find(key, &*self.dataset, first_row);
        let labels = keys.into_iter().map(|key| find(key)).collect::<Result<_, DataError>>()?;
        Ok(Self { request, labels, ..self.clone() })
    }

    /// How offsets become its frames.
    pub(crate) fn timing(&self) -> Timing<'_> {
        let Self { tolerance_s, frames_per_unit, .. } = *self;
        Timing { fps: self.description().fps, tolerance_s, source: &self.name, frames_per_unit }
    }

    /// As [`Mixture::with_whole_pairs`](crate::Mixture::with_whole_pairs).
    pub(crate) fn with_whole_pairs(&self, request: &RequestConfig) -> Result<Self, DataError> {
        let source = self.with_request(request, &request.image_deltas, &LabelRequest::default())?;
        let request = source.request.clone().of_whole_pairs(self.description().num_frames);
        Ok(Self { request, ..source })
    }

    /// The same episodes with another split: those with these indices are held out, all others are for training.
    ///
    /// # Errors
    /// [`Problem`] when no episode is left for training.
    pub(crate) fn with_held_out(&self, held_out: &[u64]) -> Result<Self, Problem> {
        let mut spans: Vec<EpisodeSpan> = self.train.iter().chain(self.validation.iter()).copied().collect();
        spans.sort_by_key(|span| span.from_row);
        let (train, validation) = split_by(&self.name, held_out, spans)?;
        Ok(Self { train: train.into(), validation: validation.into(), ..self.clone() })
    }

    /// The same source with only these rows as anchors in training, by episode.
    pub(crate) fn with_kept(self, kept: HashMap<u64, Vec<Range<u64>>>) -> Self {
        Self { kept: Some(Arc::new(kept)), ..self }
    }

    /// Rows of an episode that may be anchors in training.
    pub(crate) fn kept_rows(&self, span: &EpisodeSpan) -> Vec<Range<u64>> {
        match &self.kept {
            None => span.rows(),
            Some(kept) => kept.get(&span.episode).cloned().unwrap_or_default(),
        }
    }

    /// The same source without the training episodes whose actions may not be seen.
    pub(crate) fn labelled_only(&self) -> Self {
        let is_labelled = |span: &&EpisodeSpan| self.shows_actions(span, Split::Train);
        Self { train: self.train.iter().filter(is_labelled).copied().collect(), ..self.clone() }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the dataset says about itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        self.dataset.describe()
    }

    /// Episodes of one split, in the dataset's order.
    #[must_use]
    pub fn episodes(&self, split: Split) -> &[EpisodeSpan] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }

    /// Whether a sample of the episode shows its actions: held-out episodes do, training episodes where they are labelled.
    pub(crate) fn shows_actions(&self, span: &EpisodeSpan, split: Split) -> bool {
        split == Split::Validation || self.labelled.as_ref().is_none_or(|labelled| labelled.contains(&span.episode))
    }

    /// Seconds between the earliest and the latest image at `rows`.
    pub(crate) fn seconds_between(&self, rows: &[u64]) -> f64 {
        match (rows.iter().min(), rows.iter().max()) {
            (Some(&first), Some(&last)) => (last as f64 - first as f64) / self.description().fps,
            _ => 0.0,
        }
    }
}

/// A source of an RLDS dataset has the section `rlds`, one of scenes the section `scenes`, and no other has.
pub(crate) fn check_section(name: &str, source: &SourceConfig, root: &Path) -> Result<(), Problem> {
    let rlds = (formats::is_rlds(root), source.rlds.is_some());
    let scenes = (formats::is_scenes(root), source.scenes.is_some());
    for (section, (is_needed, is_there), what, keys) in [
        ("rlds", rlds, "an RLDS dataset", "split, val_split, fps, task_key"),
        ("scenes", scenes, "a dataset of scenes", "fps, filters, min_frames, split"),
    ] {
        let root = root.display();
        let (message, hint) = match (is_needed, is_there) {
            (true, false) => {
                (format!("{root} is {what}, which does not record its rate"), format!("give {section}: {{{keys}}}"))
            }
            (false, true) => (format!("{root} is not {what}"), "set it to null".to_owned()),
            _ => continue,
        };
        return Err(Problem::new(format!("data.sources.{name}.{section}"), message, hint));
    }
    Ok(())
}

/// Looks for every camera and vector that a source names.
pub(crate) fn check_features(name: &str, source: &SourceConfig, found: &Description) -> Result<(), Problem> {
    let cameras = source.cameras.iter().map(|(role, key)| (FeatureKind::Camera, format!("cameras.{role}"), key));
    let vectors = [("state_key", &source.state_key), ("action_key", &source.action_key)];
    let vectors = vectors
        .into_iter()
        .filter_map(|(setting, key)| key.as_ref().map(|key| (FeatureKind::Vector, setting.to_owned(), key)));
    for (kind, setting, key) in cameras.chain(vectors) {
        if found.feature(key, kind).is_some() {
            continue;
        }
        let root = source.place();
        let what = if kind == FeatureKind::Camera { "colour camera" } else { "numeric feature" };
        let message = if kind == FeatureKind::Camera && found.feature(key, FeatureKind::Depth).is_some() {
            format!("`{key}` of {root} is a depth map, not a {what}")
        } else {
            format!("{root} has no {what} `{key}`")
        };
        let hint = existing_features(what, &found.keys(kind).collect::<Vec<_>>());
        return Err(Problem::new(format!("data.sources.{name}.{setting}"), message, hint));
    }
    Ok(())
}

/// The episodes that the configuration asks for, in the dataset's order.
pub(crate) fn chosen_episodes(
    name: &str,
    config: &SourceConfig,
    dataset: &dyn Dataset,
) -> Result<Vec<EpisodeSpan>, Problem> {
    let mut spans = dataset.episodes();
    for (key, listed) in [("episodes", &config.episodes), ("exclude_episodes", &config.exclude_episodes)] {
        let Some(listed) = listed else { continue };
        require_episodes(name, key, listed, &dataset.episodes(), "")?;
        let listed: BTreeSet<u64> = listed.iter().copied().collect();
        spans.retain(|span| listed.contains(&span.episode) == (key == "episodes"));
    }
    if spans.is_empty() && config.exclude_episodes.is_some() {
        let key = format!("data.sources.{name}.exclude_episodes");
        return Err(Problem::new(key, "no episode is left", "leave out fewer, or leave the source out"));
    }
    Ok(spans)
}

/// Refuses an episode of a list that `spans` do not have.
fn require_episodes(name: &str, key: &str, listed: &[u64], spans: &[EpisodeSpan], among: &str) -> Result<(), Problem> {
    let known: BTreeSet<u64> = spans.iter().map(|span| span.episode).collect();
    let Some(unknown) = listed.iter().find(|episode| !known.contains(episode)) else { return Ok(()) };
    let hint = format!("the dataset has {} episodes{among}, counted from 0", known.len());
    Err(Problem::new(format!("data.sources.{name}.{key}"), format!("there is no episode {unknown}{among}"), hint))
}

/// The training episodes whose actions may be seen; none where all may.
fn labelled_episodes(
    name: &str,
    config: &SourceConfig,
    train: &[EpisodeSpan],
) -> Result<Option<BTreeSet<u64>>, Problem> {
    let Some(labelled) = &config.labelled_episodes else { return Ok(None) };
    let trained: BTreeSet<u64> = train.iter().map(|span| span.episode).collect();
    if let Some(episode) = labelled.iter().find(|episode| !trained.contains(episode)) {
        let message = format!("episode {episode} is no training episode");
        let hint = "leave it out: it is held out, or not in use";
        return Err(Problem::new(format!("data.sources.{name}.labelled_episodes"), message, hint));
    }
    tracing::info!("{name}: actions of {} of {} training episodes", labelled.len(), train.len());
    Ok(Some(labelled.iter().copied().collect()))
}

/// Holds out the episodes with these indices.
fn split_by(
    name: &str,
    held_out: &[u64],
    spans: Vec<EpisodeSpan>,
) -> Result<(Vec<EpisodeSpan>, Vec<EpisodeSpan>), Problem> {
    let is_held_out: BTreeSet<u64> = held_out.iter().copied().collect();
    let (validation, train): (Vec<_>, Vec<_>) = spans.into_iter().partition(|span| is_held_out.contains(&span.episode));
    if train.is_empty() {
        let message = format!("all of its episodes are held out: {held_out:?}");
        let hint = "use more episodes, or start a new run";
        return Err(Problem::new(format!("data.sources.{name}.episodes"), message, hint));
    }
    Ok((train, validation))
}

/// Splits by episode.
fn split_episodes(
    name: &str,
    config: &SourceConfig,
    spans: Vec<EpisodeSpan>,
) -> Result<(Vec<EpisodeSpan>, Vec<EpisodeSpan>), Problem> {
    let num_held_out = usize::try_from(config.num_val_episodes).unwrap_or(usize::MAX);
    if num_held_out >= spans.len() {
        let message = format!("{num_held_out} of {} episodes leave none for training", spans.len());
        let hint = "hold out fewer episodes";
        return Err(Problem::new(format!("data.sources.{name}.num_val_episodes"), message, hint));
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
