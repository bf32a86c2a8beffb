//! Where each episode is: `meta/episodes`, or the one file of v2.1. Only the few numbers that reading needs stay in memory.

use super::meta::Info;
use super::table::{append_f64, ints, open_table, texts};
use super::v21;
use crate::error::DataError;
use arrow_array::{ArrayRef, cast::AsArray};
use arrow_schema::DataType;
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// One episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Episode {
    /// Its index in the dataset.
    pub index: u64,
    /// Its first global row.
    pub from_row: u64,
    /// One past its last global row.
    pub to_row: u64,
    /// Which of the dataset's data files it is in.
    pub(crate) data_file: u32,
}

impl Episode {
    /// Number of frames.
    #[must_use]
    pub fn num_frames(&self) -> u64 {
        self.to_row - self.from_row
    }
}

/// Where an episode is in the videos of one camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VideoSpan {
    /// Chunk and file index, into [`super::meta::Info::video_file`].
    pub file: (u32, u32),
    /// Time of the episode's first frame in the file, seconds.
    pub from_s: f64,
    /// End of the episode's last frame in the file, seconds.
    pub to_s: f64,
}

impl fmt::Display for VideoSpan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file: (chunk, file), from_s, to_s } = self;
        write!(formatter, "{from_s} s to {to_s} s of video {chunk:03}/{file:03}")
    }
}

/// Episodes and the data files that they name, as (chunk, file) in the order of their first row.
pub(crate) type Episodes = (Vec<Episode>, Vec<(u32, u32)>);

/// A row of the list of episodes.
#[derive(Clone, Copy)]
struct Listed {
    episode: Episode,
    /// Chunk and index of its data file.
    file: (u32, u32),
    /// Which of the files of `meta/episodes` has the row.
    source: usize,
}

impl PartialEq for Listed {
    /// Whether both say the same, wherever they are.
    fn eq(&self, other: &Self) -> bool {
        (self.episode, self.file) == (other.episode, other.file)
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { episode: Episode { from_row, to_row, .. }, file: (chunk, file), .. } = self;
        write!(formatter, "rows {from_row}..{to_row} of data file {chunk:03}/{file:03}")
    }
}

/// The error of an episode that two rows describe differently; `paths` are the files with these rows.
fn twice(root: &Path, what: String, paths: [&Path; 2]) -> DataError {
    let [first, second] = paths.map(|path| path.strip_prefix(root).unwrap_or(path).display());
    let hint = format!("remove the row that is wrong from {first} or {second}, or fetch or record the dataset again");
    DataError::file(paths[0], what, hint)
}

/// Reads all episodes, sorted by index.
///
/// # Errors
/// When a file is missing or damaged, an episode is empty, two overlap, or one is listed twice with other values.
pub(super) fn read_episodes(root: &Path, info: &Info) -> Result<Episodes, DataError> {
    if info.is_v21() {
        return v21::read_episodes(root, info);
    }
    let paths = episode_files(root)?;
    let mut listed: Vec<Listed> = Vec::new();
    for (path, source) in paths.iter().zip(0..) {
        let table = open_table(root, path)?;
        let columns =
            ["episode_index", "dataset_from_index", "dataset_to_index", "data/chunk_index", "data/file_index"];
        for batch in table.read(&columns)? {
            let [index, from, to, chunk, file] = int_columns(path, batch.columns(), &columns)?;
            for i in 0..batch.num_rows() {
                if from[i] >= to[i] {
                    let what = format!("episode {} has no frames (rows {}..{})", index[i], from[i], to[i]);
                    return Err(DataError::file(path, what, "record the dataset again without it"));
                }
                let (from_row, to_row) = (from[i], to[i]);
                let episode = Episode { index: index[i], from_row, to_row, data_file: 0 };
                listed.push(Listed { episode, file: (chunk[i] as u32, file[i] as u32), source });
            }
        }
    }
    listed.sort_by_key(|row| (row.episode.index, row.source));
    if let Some([first, second]) = listed.array_windows().find(|[a, b]| a.episode.index == b.episode.index && a != b) {
        let what = format!("episode {} is listed both with {first} and with {second}", first.episode.index);
        return Err(twice(root, what, [first.source, second.source].map(|source| &*paths[source])));
    }
    let before = listed.len();
    listed.dedup();
    if listed.len() < before {
        tracing::warn!("{}: {} episodes are listed twice, alike", root.display(), before - listed.len());
    }
    for [a, b] in listed.array_windows() {
        if b.episode.from_row < a.episode.to_row {
            let what = format!("episodes {} and {} overlap or are out of order", a.episode.index, b.episode.index);
            return Err(DataError::file(&root.join("meta/episodes"), what, "record or convert the dataset again"));
        }
    }
    let mut rows: Vec<_> = listed.into_iter().map(|row| (row.episode, row.file)).collect();
    let mut files: Vec<(u32, u32)> = Vec::new();
    for (episode, file) in &mut rows {
        if files.last() != Some(file) {
            if files.contains(file) {
                let what = format!("episode {} returns to data file {:03}/{:03}", episode.index, file.0, file.1);
                return Err(DataError::file(&root.join("meta/episodes"), what, "record or convert the dataset again"));
            }
            files.push(*file);
        }
        episode.data_file = files.len() as u32 - 1;
    }
    let mut episodes: Vec<Episode> = rows.into_iter().map(|(episode, _)| episode).collect();
    // Collecting keeps the memory of the longer rows.
    episodes.shrink_to_fit();
    Ok((episodes, files))
}

/// Where each of `episodes` is in the videos of a camera.
///
/// # Errors
/// When a file is missing or damaged, or an episode has no video of this camera, or two.
pub(super) fn read_video_spans(
    root: &Path,
    info: &Info,
    camera: &str,
    episodes: &[Episode],
) -> Result<Vec<VideoSpan>, DataError> {
    if info.is_v21() {
        return Ok(v21::video_spans(info, episodes));
    }
    let names = ["chunk_index", "file_index", "from_timestamp", "to_timestamp"];
    let names = names.map(|name| format!("videos/{camera}/{name}"));
    let columns = ["episode_index", &names[0], &names[1], &names[2], &names[3]];
    let mut spans: Vec<Option<VideoSpan>> = vec![None; episodes.len()];
    // Which of the files has each.
    let mut sources = vec![0_u32; episodes.len()];
    let paths = episode_files(root)?;
    for (path, source) in paths.iter().zip(0..) {
        for batch in open_table(root, path)?.read(&columns)? {
            let [index, chunk, file] = int_columns(path, batch.columns(), &columns)?;
            let (mut from_s, mut to_s) = (Vec::new(), Vec::new());
            for (column, out) in [(3, &mut from_s), (4, &mut to_s)] {
                append_f64(batch.column(column), out).map_err(|what| {
                    DataError::file(path, format!("column `{}` {what}", columns[column]), "fetch it again")
                })?;
            }
            for i in 0..batch.num_rows() {
                if let Ok(slot) = episodes.binary_search_by_key(&index[i], |episode| episode.index) {
                    let file = (chunk[i] as u32, file[i] as u32);
                    let span = VideoSpan { file, from_s: from_s[i], to_s: to_s[i] };
                    if let Some(known) = spans[slot].filter(|known| *known != span) {
                        let what =
                            format!("episode {} is listed both with {known} and with {span} of `{camera}`", index[i]);
                        return Err(twice(root, what, [&paths[sources[slot] as usize], path]));
                    }
                    (spans[slot], sources[slot]) = (Some(span), source);
                }
            }
        }
    }
    let whole: Option<Vec<VideoSpan>> = spans.into_iter().collect();
    whole.ok_or_else(|| {
        let what = format!("some episodes have no video of `{camera}`");
        DataError::file(&root.join("meta/episodes"), what, "record the dataset again")
    })
}

/// The episodes that are listed more than once, each once.
///
/// # Errors
/// When a file is missing or damaged.
pub(super) fn listed_twice(root: &Path, info: &Info) -> Result<Vec<u64>, DataError> {
    let mut listed = Vec::new();
    if info.is_v21() {
        listed = v21::listed_episodes(root)?;
    } else {
        for path in episode_files(root)? {
            for batch in open_table(root, &path)?.read(&["episode_index"])? {
                let [index] = int_columns(&path, batch.columns(), &["episode_index"])?;
                listed.extend(index);
            }
        }
    }
    listed.sort_unstable();
    let mut twice: Vec<u64> = listed.array_windows().filter(|[a, b]| a == b).map(|[a, _]| *a).collect();
    twice.dedup();
    Ok(twice)
}

/// By episode the length that the list says beside the rows; none in v2.1, where it says no rows.
///
/// # Errors
/// A file is missing or damaged, or says no lengths.
pub(super) fn listed_lengths(root: &Path, info: &Info) -> Result<BTreeMap<u64, u64>, DataError> {
    let mut lengths = BTreeMap::new();
    if !info.is_v21() {
        for path in episode_files(root)? {
            let columns = ["episode_index", "length"];
            for batch in open_table(root, &path)?.read(&columns)? {
                let [index, length] = int_columns(&path, batch.columns(), &columns)?;
                lengths.extend(index.into_iter().zip(length));
            }
        }
    }
    Ok(lengths)
}

/// The files of `meta/episodes`, in order.
fn episode_files(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let folder = root.join("meta/episodes");
    let mut files = Vec::new();
    for chunk in list(&folder)? {
        if chunk.is_dir() {
            files.extend(list(&chunk)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")));
        }
    }
    if files.is_empty() {
        return Err(DataError::file(&folder, "has no parquet files", "fetch the dataset's meta folder again"));
    }
    Ok(files)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries = std::fs::read_dir(folder).map_err(DataError::io(folder))?;
    let mut paths =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(DataError::io(folder))?;
    paths.sort();
    Ok(paths)
}

/// The first `N` columns as indices, none of them negative.
fn int_columns<const N: usize>(path: &Path, arrays: &[ArrayRef], names: &[&str]) -> Result<[Vec<u64>; N], DataError> {
    let mut out = [(); N].map(|()| Vec::new());
    for ((out, array), name) in out.iter_mut().zip(arrays).zip(names) {
        let bad = |what: String| DataError::file(path, format!("column `{name}` {what}"), "fetch or record it again");
        for value in ints(array).map_err(bad)? {
            let value = u64::try_from(value).ok().filter(|&value| value < 1 << 48);
            out.push(value.ok_or_else(|| bad("has an index out of range".into()))?);
        }
    }
    Ok(out)
}

/// The tasks that the list of episodes has, by the index of the episode.
///
/// # Errors
/// A file is missing or damaged, or has no lists of tasks.
pub(super) fn listed_tasks(root: &Path, info: &Info) -> Result<BTreeMap<u64, Vec<String>>, DataError> {
    if info.is_v21() {
        return v21::listed_tasks(root);
    }
    let mut listed = BTreeMap::new();
    for path in episode_files(root)? {
        for batch in open_table(root, &path)?.read(&["episode_index", "tasks"])? {
            let [index] = int_columns(&path, batch.columns(), &["episode_index"])?;
            let lists = text_lists(batch.column(1)).map_err(|what| {
                DataError::file(&path, format!("column `tasks` {what}"), "record or convert the dataset again")
            })?;
            listed.extend(index.into_iter().zip(lists));
        }
    }
    Ok(listed)
}

/// The lists of texts of a column.
fn text_lists(column: &ArrayRef) -> Result<Vec<Vec<String>>, String> {
    let DataType::List(_) = column.data_type() else {
        return Err(format!("has the type {}, not lists of text", column.data_type()));
    };
    let lists = column.as_list::<i32>();
    let texts = texts(lists.values())?;
    let list = |pair: &[i32]| texts[pair[0] as usize..pair[1] as usize].to_vec();
    Ok(lists.value_offsets().windows(2).map(list).collect())
}
