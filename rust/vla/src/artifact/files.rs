//! Files of an artifact and their digests.

use crate::VlaError;
use hlrp_track::fs::FileDigest;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path},
};

/// What to do about an artifact that is not as it was written.
pub(super) const DAMAGED: &str = "the artifact was changed or damaged: write it again from its run, or copy it again";

/// Bytes hashed at a time.
const BLOCK: usize = 1 << 20;

/// Whether `name` is one plain file name: no folder, no way out of the artifact.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
}

/// Size and digest of a file.
pub(super) fn record(path: &Path) -> Result<FileDigest, VlaError> {
    let read = || -> io::Result<FileDigest> {
        let mut file = File::open(path)?;
        let (mut hasher, mut size, mut block) = (Sha256::new(), 0, vec![0; BLOCK]);
        loop {
            match file.read(&mut block)? {
                0 => break,
                count => {
                    hasher.update(&block[..count]);
                    size += count as u64;
                }
            }
        }
        Ok(FileDigest { size, sha256: hex::encode(hasher.finalize()) })
    };
    read().map_err(|error| VlaError::file(path, error.to_string(), DAMAGED))
}

/// Compares a file with its record.
pub(super) fn compare(path: &Path, expected: &FileDigest) -> Result<(), VlaError> {
    let refuse = |problem: String| Err(VlaError::file(path, problem, DAMAGED));
    match fs::symlink_metadata(path) {
        Err(error) => return refuse(error.to_string()),
        Ok(metadata) if !metadata.is_file() => return refuse("it is not a plain file".to_owned()),
        Ok(metadata) if metadata.len() != expected.size => {
            return refuse(format!("it has {} bytes instead of {}", metadata.len(), expected.size));
        }
        Ok(_) => {}
    }
    if record(path)?.sha256 == expected.sha256 {
        return Ok(());
    }
    refuse("its content is not what was written (sha256 differs)".to_owned())
}
