//! A digest that names the data of a dataset.
//!
//! It takes the names, sizes, first and last bytes of all files: cheap for hundreds of gigabytes, the same wherever the folder is
//! and whenever it was copied, another one when a file is replaced.

use crate::error::DataError;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::Xxh3;

/// Bytes at either end of a file that are read: both ends of parquet and MP4 files depend on all that is between them.
const END_BYTES: u64 = 4096;

/// What names the content of a file.
pub(super) struct Ends {
    size: u64,
    /// Time of the last change, seconds and nanoseconds.
    changed: [i64; 2],
    /// First and last bytes.
    bytes: [Vec<u8>; 2],
}

impl Ends {
    /// Those of a regular file.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let size = metadata.len();
        let mut bytes = [0, size.saturating_sub(END_BYTES)].map(|at| (at, vec![0; size.min(END_BYTES) as usize]));
        bytes.iter_mut().try_for_each(|(at, bytes)| file.read_exact_at(bytes, *at))?;
        Ok(Self { size, changed: [metadata.mtime(), metadata.mtime_nsec()], bytes: bytes.map(|(_, bytes)| bytes) })
    }
}

/// Collects what names a dataset.
#[derive(Clone)]
pub(super) struct Fingerprint(Xxh3);

impl Fingerprint {
    /// A digest for a format and its version.
    pub(super) fn new(format: &str) -> Self {
        let mut digest = Self(Xxh3::new());
        digest.add(format.as_bytes());
        digest
    }

    /// Adds bytes as one unit.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds all files below a folder of `root`: relative path, size, first and last bytes. Hidden files do not count, and
    /// neither does a folder that does not exist.
    ///
    /// # Errors
    /// A file or folder cannot be read.
    pub(super) fn add_folder(&mut self, root: &Path, folder: &str) -> Result<(), DataError> {
        let mut files = Vec::new();
        list(&root.join(folder), &mut files)?;
        files.sort();
        for path in files {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            self.add(name.as_bytes());
            self.add_file(&path).map_err(DataError::io(&path))?;
        }
        Ok(())
    }

    /// Adds one file of `root` like [`Fingerprint::add_folder`], and the time of its last change.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn add_dated_file(&mut self, root: &Path, name: &Path) -> Result<(), DataError> {
        if let Ok(metadata) = fs::metadata(root.join(name)) {
            [metadata.mtime(), metadata.mtime_nsec()].iter().for_each(|time| self.add(&time.to_le_bytes()));
        }
        self.add_named_file(root, name)
    }

    /// Adds one file of `root` like [`Fingerprint::add_folder`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn add_named_file(&mut self, root: &Path, name: &Path) -> Result<(), DataError> {
        let path = root.join(name);
        self.add(name.as_os_str().as_encoded_bytes());
        self.add_file(&path).map_err(DataError::io(&path))
    }

    /// As [`Fingerprint::add_named_file`], of a file that has been read already, or that is missing.
    pub(super) fn add_named_ends(&mut self, name: &str, ends: Option<&Ends>) {
        self.add(name.as_bytes());
        self.add_ends(ends);
    }

    /// As [`Fingerprint::add_dated_file`], of a file that has been read already.
    pub(super) fn add_dated_ends(&mut self, name: &str, ends: &Ends) {
        ends.changed.iter().for_each(|time| self.add(&time.to_le_bytes()));
        self.add_named_ends(name, Some(ends));
    }

    fn add_file(&mut self, path: &Path) -> io::Result<()> {
        // A link to nothing, or no regular file: reading the dataset will name it.
        let ends = path.is_file().then(|| Ends::read(path)).transpose()?;
        self.add_ends(ends.as_ref());
        Ok(())
    }

    fn add_ends(&mut self, ends: Option<&Ends>) {
        match ends {
            Some(Ends { size, bytes, .. }) => {
                self.0.update(&size.to_le_bytes());
                bytes.iter().for_each(|bytes| self.add(bytes));
            }
            None => self.add(b"missing"),
        }
    }

    /// 32 hexadecimal digits.
    pub(super) fn finish(self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}

/// Appends all files below `folder`.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let path = entry.map_err(DataError::io(folder))?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
