//! Where each episode of a shard is, how many steps it has, and where its features and images are.
//!
//! A shard is read whole once, every checksum is compared, and the positions go into one index file per shard, named after the shard and
//! what identifies its content. Shards whose index is there are not read again, so a build that was killed continues with the others.
//!
//! ```text
//! index file  u64 little endian: MAGIC, number of episodes, checksum of the table;
//!             table, per episode: position of its block in this file, number of steps;
//!             block, per feature: start and length in the shard, start MISSING where the episode has none;
//!                    then per camera and step: start and length of the image
//! ```

use super::info::StoredFeature;
use super::records::{DAMAGED, Records};
use super::wire::{self, List};
use crate::error::{DataError, INDEX_SPACE};
use crate::formats::{
    FeatureKind,
    fingerprint::{Ends, Fingerprint},
};
use hlrp_track::fs::write_atomic;
use std::{
    fs::File,
    io::ErrorKind,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::xxh3_64;

/// Names the layout of index files.
const MAGIC: u64 = u64::from_le_bytes(*b"hlrprld1");
const HEADER_WORDS: usize = 3;
const MISSING: u64 = u64::MAX;

/// One episode of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EpisodeEntry {
    /// Position of its block in the index file.
    pub(super) block: u64,
    pub(super) num_steps: u64,
}

/// A shard and its index file.
pub(super) struct Shard {
    pub(super) path: PathBuf,
    pub(super) index: PathBuf,
}

/// What identifies the index of a shard of a dataset with these features, but for the shard itself.
pub(super) fn fingerprint(features: &[StoredFeature]) -> Fingerprint {
    let mut fingerprint = Fingerprint::new("rlds index 1");
    features.iter().for_each(|feature| fingerprint.add(format!("{feature:?}").as_bytes()));
    fingerprint
}

/// The name of the index of a shard, after what identifies it.
pub(super) fn index_name(mut fingerprint: Fingerprint, shard: &str, ends: &Ends) -> String {
    fingerprint.add_dated_ends(shard, ends);
    format!("{shard}-{}.index", fingerprint.finish())
}

impl Shard {
    /// The episodes of the shard, from its index file if there is one; otherwise the shard is read and the file is written.
    ///
    /// # Errors
    /// The shard is damaged or has another number of episodes, or the index cannot be read or written.
    pub(super) fn episodes(
        &self,
        features: &[StoredFeature],
        num_episodes: u64,
    ) -> Result<Vec<EpisodeEntry>, DataError> {
        match File::open(&self.index) {
            Ok(file) => self.read(&file, num_episodes),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let records = read_shard(&self.path, features, num_episodes)?;
                let (table, bytes) = encode(&records);
                write_atomic(&self.index, bytes).map_err(DataError::space(INDEX_SPACE))?;
                tracing::info!("index of {}: {} episodes", self.path.display(), table.len());
                Ok(table)
            }
            Err(error) => Err(DataError::io(&self.index)(error)),
        }
    }

    /// Reads the shard and compares it with its index: its number of episodes.
    ///
    /// # Errors
    /// The shard or the index is damaged, or the shard has changed.
    pub(super) fn check(&self, features: &[StoredFeature]) -> Result<u64, DataError> {
        let index = std::fs::read(&self.index).map_err(DataError::io(&self.index))?;
        let num_episodes = from_le(index.get(8..16).unwrap_or_default()).first().copied().unwrap_or_default();
        let (_, bytes) = encode(&read_shard(&self.path, features, num_episodes)?);
        if bytes != index {
            let hint = "move it away; it is then built again";
            return Err(DataError::file(&self.index, format!("is not the index of {}", self.path.display()), hint));
        }
        Ok(num_episodes)
    }

    /// Reads the table of an index file.
    fn read(&self, file: &File, num_episodes: u64) -> Result<Vec<EpisodeEntry>, DataError> {
        let damaged = || {
            DataError::file(&self.index, "is not a whole index of its shard", "move it away; it is then built again")
        };
        let header = words(file, 0, HEADER_WORDS).map_err(|_| damaged())?;
        if header[0] != MAGIC || header[1] != num_episodes {
            return Err(damaged());
        }
        let mut table = vec![0; 16 * num_episodes as usize];
        file.read_exact_at(&mut table, 8 * HEADER_WORDS as u64).map_err(|_| damaged())?;
        if xxh3_64(&table) != header[2] {
            return Err(damaged());
        }
        let entry = |words: &[u64]| EpisodeEntry { block: words[0], num_steps: words[1] };
        Ok(from_le(&table).chunks_exact(2).map(entry).collect())
    }
}

/// Where something of an episode is in the shard; none where the episode lacks it.
pub(super) fn place(index: &File, path: &Path, at: u64) -> Result<Option<Range<u64>>, DataError> {
    let pair = words(index, at, 2).map_err(DataError::io(path))?;
    let end = pair[0].checked_add(pair[1]);
    Ok(end.filter(|_| pair[0] != MISSING).map(|end| pair[0]..end))
}

/// Position in the index file of what [`place`] reads of a feature.
pub(super) fn at_feature(entry: EpisodeEntry, feature: usize) -> u64 {
    entry.block + 16 * feature as u64
}

/// Position in the index file of what [`place`] reads of an image.
pub(super) fn at_image(entry: EpisodeEntry, num_features: usize, camera: usize, step: u64) -> u64 {
    entry.block + 16 * (num_features as u64 + camera as u64 * entry.num_steps + step)
}

/// Positions in a shard of everything in one record.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    num_steps: u64,
    features: Vec<Option<Range<u64>>>,
    /// Per camera the images of all steps, or none at all.
    images: Vec<Vec<Range<u64>>>,
}

/// Reads a shard and compares its checksums.
///
/// # Errors
/// The shard is damaged, contradicts `features`, or does not have `num_episodes`.
pub(super) fn read_shard(path: &Path, features: &[StoredFeature], num_episodes: u64) -> Result<Vec<Record>, DataError> {
    let mut shard = Records::open(path)?;
    let mut found = Vec::new();
    while let Some((start, bytes)) = shard.next()? {
        let record = read_record(bytes, start, features).map_err(|what| {
            let hint = "compare it with features.json, or fetch the dataset again";
            DataError::file(path, format!("record {} at byte {start}: {what}", found.len()), hint)
        })?;
        found.push(record);
    }
    if found.len() as u64 != num_episodes {
        let what = format!("has {} episodes, but dataset_info.json says {num_episodes}", found.len());
        return Err(DataError::file(path, what, DAMAGED));
    }
    Ok(found)
}

/// Positions of everything in a record that begins at `start` in its file, and its number of steps.
fn read_record(bytes: &[u8], start: u64, stored: &[StoredFeature]) -> Result<Record, String> {
    let present = wire::features(bytes).map_err(|what| format!("the example {what}"))?;
    let absolute = |range: &Range<usize>| start + range.start as u64..start + range.end as u64;
    let mut num_steps: Option<(u64, &str)> = None;
    let mut features = Vec::with_capacity(stored.len());
    let mut images = Vec::new();
    for StoredFeature { name, of_step, feature, .. } in stored {
        let wrong = |what: String| format!("`{name}` {what}");
        let range = present.get(name.as_str()).cloned();
        features.push(range.as_ref().map(absolute));
        let list = range.map(|range| wire::list(bytes, range)).transpose().map_err(wrong)?.flatten();
        let is_camera = feature.kind == FeatureKind::Camera;
        let num_values = match (&list, feature.kind) {
            (None, _) => 0,
            (Some((List::Bytes, range)), FeatureKind::Camera | FeatureKind::Depth | FeatureKind::Text) => {
                let items = wire::items(bytes, range.clone()).map_err(wrong)?;
                if is_camera && *of_step {
                    images.push(items.iter().map(absolute).collect());
                }
                items.len()
            }
            (Some((List::Floats, range)), FeatureKind::Vector) => {
                wire::floats(bytes, range.clone()).map_err(wrong)?.len()
            }
            (Some((List::Ints, range)), FeatureKind::Vector) => wire::ints(bytes, range.clone()).map_err(wrong)?.len(),
            (Some((other, _)), kind) => return Err(wrong(format!("is a list of {other:?}, not a {kind:?}"))),
        };
        if is_camera && *of_step && num_values == 0 && list.as_ref().is_none_or(|(kind, _)| *kind != List::Bytes) {
            images.push(Vec::new());
        }
        if list.is_none() {
            if let Some(last) = features.last_mut() {
                *last = None;
            }
            continue;
        }
        let per_item = if feature.kind == FeatureKind::Vector { feature.num_values() } else { 1 };
        if num_values % per_item != 0 || (!of_step && num_values != per_item) {
            return Err(wrong(format!("has {num_values} values, not {per_item} each")));
        }
        let items = (num_values / per_item) as u64;
        match num_steps {
            _ if !of_step => {}
            None => num_steps = Some((items, name)),
            Some((steps, _)) if steps == items => {}
            Some((steps, first)) => return Err(wrong(format!("has {items} steps, but `{first}` has {steps}"))),
        }
    }
    let num_steps = num_steps.map_or(0, |(steps, _)| steps);
    Ok(Record { num_steps, features, images })
}

/// The content of an index file, and its table.
fn encode(records: &[Record]) -> (Vec<EpisodeEntry>, Vec<u8>) {
    let mut block = 8 * HEADER_WORDS as u64 + 16 * records.len() as u64;
    let mut table = Vec::with_capacity(records.len());
    let mut blocks: Vec<u64> = Vec::new();
    let pair = |range: &Range<u64>| [range.start, range.end - range.start];
    for Record { num_steps, features, images } in records {
        table.push(EpisodeEntry { block, num_steps: *num_steps });
        let before = blocks.len();
        for feature in features {
            blocks.extend(feature.as_ref().map_or([MISSING, 0], pair));
        }
        for camera in images {
            match camera.is_empty() {
                true => blocks.extend((0..*num_steps).flat_map(|_| [MISSING, 0])),
                false => blocks.extend(camera.iter().flat_map(pair)),
            }
        }
        block += 8 * (blocks.len() - before) as u64;
    }
    let le = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let entries = le(&table.iter().flat_map(|entry| [entry.block, entry.num_steps]).collect::<Vec<_>>());
    let header = le(&[MAGIC, records.len() as u64, xxh3_64(&entries)]);
    (table, [header, entries, le(&blocks)].concat())
}

fn words(file: &File, at: u64, count: usize) -> std::io::Result<Vec<u64>> {
    let mut bytes = vec![0; 8 * count];
    file.read_exact_at(&mut bytes, at)?;
    Ok(from_le(&bytes))
}

fn from_le(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|chunk| chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))).collect()
}
