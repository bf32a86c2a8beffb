//! Opening a dataset of scenes: finds all scenes, looks into the folder of each, and numbers the rows of those in use.

use super::bridge::{self, Trajectory};
use super::dataset::{CAMERA, NAMES_BYTES, Scene, SceneDataset, inspect_frame, read_frame};
use super::index::{self, Look};
use super::names::{check_inside, entries, frame_entries, frames_in, gap};
use super::table::{self, Row, TABLE};
use crate::error::DataError;
use crate::formats::{Description, Feature, FeatureKind, fingerprint::Fingerprint};
use crate::images::{DAMAGED, shown_size};
use crate::lru::ByteLru;
use crate::request::EpisodeSpan;
use hlrp_schema::{Conditions, ScenesConfig};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Most scenes of a dataset.
const MAX_SCENES: usize = 1 << 20;
/// Name of the fact with the number of a scene's frames.
const NUM_FRAMES: &str = "num_frames";

/// Whether a folder has a table of scenes, or a folder in it has one.
pub(super) fn has_table(root: &Path) -> bool {
    let has_one = |folder: &Path| folder.join(TABLE).exists();
    has_one(root) || entries(root).is_ok_and(|inner| inner.iter().any(|entry| has_one(&entry.path())))
}

/// Opens the dataset at `root`; without `config` all of its scenes, at one frame per second. Their folders are indexed below `index_dir`, if there is one.
///
/// # Errors
/// A table, a folder or a description is damaged, a link leads out of the dataset, or no scene is left.
pub(super) fn open(
    root: &Path,
    config: Option<&ScenesConfig>,
    index_dir: Option<&Path>,
) -> Result<SceneDataset, DataError> {
    let root = root.canonicalize().map_err(DataError::io(root))?;
    let mut fingerprint = Fingerprint::new("scenes");
    let is_table = has_table(&root);
    let found = if is_table { read_tables(&root, &mut fingerprint)? } else { read_tree(&root)? };
    let rules = Rules::of(config)?;

    let (mut scenes, mut empty, mut with_gap) = (Vec::new(), Vec::new(), Vec::new());
    let (mut num_scenes, mut num_unlike, mut num_frames) = (0, 0, 0);
    for (found, look) in found.iter().zip(index::looks(&root, &found, index_dir)?) {
        let Some(seen) = look.map(|look| found.judge(look, &rules)) else { continue };
        let episode = num_scenes;
        num_scenes += 1;
        num_unlike += u64::from(!seen.is_match);
        fingerprint.add(seen.fingerprint.as_bytes());
        if seen.num_frames == 0 {
            empty.push(found.frames.clone());
        } else if seen.is_match && seen.num_frames >= rules.min_frames {
            let span = EpisodeSpan { episode, from_row: num_frames, to_row: num_frames + seen.num_frames };
            num_frames = span.to_row;
            scenes.push(Scene {
                span,
                frames: found.frames.clone(),
                task: seen.task.map(String::into_boxed_str),
                num_listed: found.num_listed(),
                is_chosen: seen.is_chosen,
            });
            with_gap.extend(seen.has_gap.then_some(&found.frames));
        }
    }
    let Some(first) = scenes.first() else { return Err(none_left(root, &found, num_scenes, num_unlike)) };
    if let Some(first) = with_gap.first() {
        let (root, first, num_scenes) = (root.display(), first.display(), with_gap.len());
        tracing::warn!(
            "{root}: frames are missing in {num_scenes} scenes, such as {first}; `hlrp data check` lists them"
        );
    }
    let prefix = found[0].prefix();
    Ok(SceneDataset {
        description: Description {
            format: format!("scenes, {}", if is_table { "YouTube form" } else { "raw Bridge v2" }),
            robot: None,
            fps: config.map_or(1.0, |config| config.fps),
            is_fps_known: config.is_some(),
            num_episodes: scenes.len() as u64,
            num_frames,
            features: [(CAMERA.to_owned(), camera(&root.join(&first.frames), prefix)?)].into(),
            tasks: Vec::new(),
            statistics: BTreeMap::new(),
            fingerprint: fingerprint.finish(),
        },
        root,
        prefix,
        scenes,
        empty,
        split: config.and_then(|config| config.split.clone()),
        names: Mutex::new(ByteLru::new(NAMES_BYTES, usize::MAX)),
    })
}

/// The error of a dataset without a scene that can be used.
fn none_left(root: PathBuf, found: &[Found], num_scenes: u64, num_unlike: u64) -> DataError {
    let (what, hint) = if num_scenes == 0 {
        (
            "has no scene".to_owned(),
            "its tables list none, or no trajectory has a folder images0: fetch it again".to_owned(),
        )
    } else {
        let few = num_scenes - num_unlike;
        let facts: BTreeSet<_> = found.iter().flat_map(Found::facts).chain([NUM_FRAMES]).collect();
        let facts = facts.into_iter().collect::<Vec<_>>().join(", ");
        (
            format!(
                "none of its {num_scenes} scenes is left: {num_unlike} do not fulfil the conditions, {few} have too few frames"
            ),
            format!("change data.sources.<name>.scenes.filters or min_frames; the facts of a scene are {facts}"),
        )
    };
    DataError::Dataset { root, what, hint }
}

/// The camera, with the size of the first frame in a folder.
fn camera(folder: &Path, prefix: &str) -> Result<Feature, DataError> {
    let name = &frames_in(folder, prefix)?[0];
    let path = folder.join(name);
    let size = read_frame(&path).and_then(|bytes| shown_size(&bytes));
    let size = size.map_err(|what| DataError::file(&path, what, DAMAGED))?;
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    Ok(Feature {
        kind: FeatureKind::Camera,
        shape: vec![size.height, size.width, 3],
        dtype: if extension == "png" { "png".into() } else { "jpeg".into() },
        names: Vec::new(),
    })
}

/// Which scenes are in use, and which of them the conditions of the split choose.
struct Rules {
    filters: Option<Conditions>,
    chosen: Option<Conditions>,
    min_frames: u64,
}

impl Rules {
    fn of(config: Option<&ScenesConfig>) -> Result<Self, DataError> {
        let Some(config) = config else { return Ok(Self { filters: None, chosen: None, min_frames: 1 }) };
        let chosen = config.split.as_ref().and_then(|split| split.val_filters.as_ref());
        Ok(Self {
            filters: Some(Conditions::of(&config.filters)?),
            chosen: chosen.map(Conditions::of).transpose()?,
            min_frames: config.min_frames,
        })
    }
}

/// A scene that a table or a path names.
pub(super) struct Found {
    /// Folder of its frames, below the root.
    pub(super) frames: PathBuf,
    origin: Origin,
}

enum Origin {
    Table(Row),
    Tree(Trajectory),
}

/// What is known of a scene.
struct Seen {
    num_frames: u64,
    task: Option<String>,
    has_gap: bool,
    /// Whether the conditions of the source hold.
    is_match: bool,
    /// Whether those of its split hold.
    is_chosen: bool,
    fingerprint: String,
}

/// The scenes of all tables.
fn read_tables(root: &Path, fingerprint: &mut Fingerprint) -> Result<Vec<Found>, DataError> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut folders = vec![(PathBuf::new(), name(root))];
    if !root.join(TABLE).exists() {
        let videos = entries(root)?.into_iter().filter(|entry| entry.path().join(TABLE).exists());
        folders = videos.map(|entry| (entry.file_name().into(), name(&entry.path()))).collect();
    }
    let mut found = Vec::new();
    let mut known = HashSet::new();
    for (folder, video_id) in folders {
        check_inside(root, &root.join(&folder))?;
        let path = folder.join(TABLE);
        let rows = table::read(&root.join(&path), &video_id)?;
        check_number(root, found.len() + rows.len())?;
        for row in rows {
            let frames = folder.join(row.folder());
            if !known.insert(frames.clone()) {
                let what = format!("lists the scene {} twice", frames.display());
                return Err(DataError::file(&root.join(&path), what, "leave out one of the lines"));
            }
            found.push(Found { frames, origin: Origin::Table(row) });
        }
        fingerprint.add_named_file(root, &path)?;
    }
    Ok(found)
}

/// The trajectories of a tree.
fn read_tree(root: &Path) -> Result<Vec<Found>, DataError> {
    let trajectories = bridge::find(root)?;
    check_number(root, trajectories.len())?;
    let found = trajectories
        .into_iter()
        .map(|trajectory| Found { frames: trajectory.folder.join(bridge::FRAMES), origin: Origin::Tree(trajectory) })
        .collect();
    Ok(found)
}

/// Bounds the memory that scenes take.
fn check_number(root: &Path, num_scenes: usize) -> Result<(), DataError> {
    if num_scenes <= MAX_SCENES {
        return Ok(());
    }
    let (what, hint) = (format!("has more than {MAX_SCENES} scenes"), "divide it into several sources".to_owned());
    Err(DataError::Dataset { root: root.to_owned(), what, hint })
}

impl Found {
    /// How the names of its frames begin.
    fn prefix(&self) -> &'static str {
        match self.origin {
            Origin::Table(_) => "",
            Origin::Tree(_) => bridge::FRAME_PREFIX,
        }
    }

    /// Number of frames that the table says it has.
    fn num_listed(&self) -> Option<u64> {
        match &self.origin {
            Origin::Table(row) => Some(row.num_frames()),
            Origin::Tree(_) => None,
        }
    }

    /// Names of what may be known of it.
    fn facts(&self) -> Vec<&str> {
        match &self.origin {
            Origin::Table(row) => row.facts().collect(),
            Origin::Tree(_) => bridge::FACTS.to_vec(),
        }
    }

    /// Folder of its trajectory, below the root; none of a table's scene.
    pub(super) fn trajectory(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Table(_) => None,
            Origin::Tree(trajectory) => Some(&trajectory.folder),
        }
    }

    /// Looks into its folder; none where a path names a scene without a folder of frames.
    ///
    /// # Errors
    /// A folder that a table names is missing, a folder cannot be read or is a link that leads out of the dataset, or the instruction is not text.
    pub(super) fn look(&self, root: &Path) -> Result<Option<Look>, DataError> {
        let folder = root.join(&self.frames);
        if !folder.is_dir() {
            let Origin::Table(_) = self.origin else { return Ok(None) };
            let hint = format!("fetch it, or leave out its line of {TABLE}");
            return Err(DataError::file(&folder, "the folder of a scene is missing", hint));
        }
        check_inside(root, &folder)?;
        let mut digest = Fingerprint::new("frames");
        let mut names = Vec::new();
        for (name, entry) in frame_entries(&folder, self.prefix())? {
            let metadata = entry.metadata().map_err(DataError::io(entry.path()))?;
            // What a link leads to; one to nothing is named when the frame is read.
            let linked = metadata.is_symlink().then(|| fs::metadata(entry.path()).ok()).flatten();
            digest.add(name.as_encoded_bytes());
            digest.add(&linked.unwrap_or(metadata).len().to_le_bytes());
            names.push(name);
        }
        if let Some(first) = names.first().map(|name| self.frames.join(name)) {
            inspect_frame(&root.join(&first)).map_err(|what| DataError::file(&root.join(&first), what, DAMAGED))?;
            digest.add_named_file(root, &first)?;
        }
        let task = self.trajectory().map(|folder| bridge::language(&root.join(folder))).transpose()?.flatten();
        let (num_frames, has_gap) = (names.len() as u64, gap(&names).is_some());
        Ok(Some(Look { num_frames, has_gap, task, frames: digest.finish() }))
    }

    /// What is known of it after a look into its folder.
    fn judge(&self, look: Look, rules: &Rules) -> Seen {
        let Look { num_frames, has_gap, task, frames } = look;
        let task = match &self.origin {
            Origin::Table(row) => row.fact(bridge::LANGUAGE).as_str().map(str::to_owned),
            Origin::Tree(_) => task,
        };
        let fact = |name: &str| match (name, &self.origin) {
            (NUM_FRAMES, _) => num_frames.into(),
            (bridge::LANGUAGE, _) => task.as_deref().into(),
            (_, Origin::Table(row)) => row.fact(name),
            (_, Origin::Tree(trajectory)) => trajectory.fact(name),
        };
        let is_match = rules.filters.as_ref().is_none_or(|filters| filters.hold(fact));
        let is_chosen = rules.chosen.as_ref().is_some_and(|chosen| chosen.hold(fact));
        let mut fingerprint = Fingerprint::new("scene");
        for part in [
            self.frames.as_os_str().as_encoded_bytes(),
            task.as_deref().unwrap_or_default().as_bytes(),
            frames.as_bytes(),
        ] {
            fingerprint.add(part);
        }
        Seen { num_frames, has_gap, is_match, is_chosen, fingerprint: fingerprint.finish(), task }
    }
}
