//! What the folders of scenes contain, kept below the cache root: a dataset of many scenes opens without reading its folders again.
//!
//! Scenes are looked at in groups, each with a file of its own, named after the folders of its scenes and when each of them, and each instruction,
//! was changed. A group whose file is there is not looked at again, so a build that was killed continues with the others.
//!
//! ```text
//! index file  u64 little endian: MAGIC, checksum of the rest; a JSON list of one look per scene, null where there is no folder of frames
//! ```

use super::bridge;
use super::open::Found;
use crate::error::{DataError, INDEX_SPACE};
use crate::formats::fingerprint::Fingerprint;
use crate::parallel::in_parallel;
use hlrp_track::fs::write_atomic;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::Path,
};
use xxhash_rust::xxh3::xxh3_64;

/// Names the layout of index files.
const MAGIC: u64 = u64::from_le_bytes(*b"hlrpscn1");
/// Scenes of one file.
const GROUP: usize = 256;

/// What a look into the folder of a scene shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Look {
    pub(super) num_frames: u64,
    pub(super) has_gap: bool,
    /// The instruction of a trajectory; that of a table's scene is in the table.
    pub(super) task: Option<String>,
    /// Digest of the names and sizes of its frames, and of what is at both ends of the first.
    pub(super) frames: String,
}

/// A look into the folder of every scene, from the index below `dir` as far as it has them; without `dir` each folder is read. None where a path names
/// a scene without a folder of frames.
///
/// # Errors
/// As [`Found::look`], and an index that is damaged or cannot be written.
pub(super) fn looks(root: &Path, scenes: &[Found], dir: Option<&Path>) -> Result<Vec<Option<Look>>, DataError> {
    let look =
        |group: &[Found]| in_parallel(group, |found| found.look(root)).into_iter().collect::<Result<Vec<_>, _>>();
    let Some(dir) = dir else { return look(scenes) };
    let dir = dir.join("scenes").join(root.file_name().unwrap_or("dataset".as_ref()));
    fs::create_dir_all(&dir).map_err(DataError::io(&dir))?;
    let groups: Vec<&[Found]> = scenes.chunks(GROUP).collect();
    let known = in_parallel(&groups, |group| {
        let path = dir.join(format!("{}.index", stamp(root, group)));
        read(&path, group.len()).map(|known| (path, known))
    });
    let known = known.into_iter().collect::<Result<Vec<_>, _>>()?;
    let num_new: usize =
        groups.iter().zip(&known).filter(|(_, (_, known))| known.is_none()).map(|(group, _)| group.len()).sum();
    if num_new > 0 {
        tracing::info!("{}: reading the folders of {num_new} of {} scenes, once", root.display(), scenes.len());
    }
    let mut looks = Vec::with_capacity(scenes.len());
    for (group, (path, known)) in groups.into_iter().zip(known) {
        looks.extend(match known {
            Some(known) => known,
            None => {
                let new = look(group)?;
                write(&path, &new)?;
                new
            }
        });
    }
    Ok(looks)
}

/// What identifies a look into the folders of some scenes.
fn stamp(root: &Path, scenes: &[Found]) -> String {
    let mut stamp = Fingerprint::new("scene index 1");
    let mut add = |metadata: Option<Metadata>| {
        let numbers = metadata.map_or([-1; 4], |metadata| {
            [metadata.mtime(), metadata.mtime_nsec(), metadata.ino().cast_signed(), metadata.len().cast_signed()]
        });
        stamp.add(&numbers.map(i64::to_le_bytes).concat());
    };
    for found in scenes {
        let folder = root.join(&found.frames);
        let metadata = fs::symlink_metadata(&folder).ok();
        if metadata.as_ref().is_some_and(Metadata::is_symlink) {
            add(fs::metadata(&folder).ok());
        }
        add(metadata);
        if let Some(trajectory) = found.trajectory() {
            add(fs::symlink_metadata(root.join(trajectory).join(bridge::LANGUAGE_FILE)).ok());
        }
    }
    scenes.iter().for_each(|found| stamp.add(found.frames.as_os_str().as_encoded_bytes()));
    stamp.finish()
}

/// The content of an index file; none where there is no such file.
fn read(path: &Path, num_scenes: usize) -> Result<Option<Vec<Option<Look>>>, DataError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::io(path)(error)),
    };
    let content = bytes.strip_prefix(&MAGIC.to_le_bytes()).and_then(|rest| {
        let (checksum, json) = rest.split_first_chunk::<8>()?;
        (xxh3_64(json) == u64::from_le_bytes(*checksum)).then_some(json)
    });
    let looks: Option<Vec<Option<Look>>> = content.and_then(|json| serde_json::from_slice(json).ok());
    match looks.filter(|looks| looks.len() == num_scenes) {
        Some(looks) => Ok(Some(looks)),
        None => {
            let hint = "move it away; it is then built again";
            Err(DataError::file(path, "is not a whole index of scenes", hint))
        }
    }
}

fn write(path: &Path, looks: &[Option<Look>]) -> Result<(), DataError> {
    let json = serde_json::to_vec(looks).map_err(|error| DataError::io(path)(error.into()))?;
    let bytes = [&MAGIC.to_le_bytes()[..], &xxh3_64(&json).to_le_bytes(), &json].concat();
    write_atomic(path, bytes).map_err(DataError::space(INDEX_SPACE))
}
