//! Size and digest of a file.

use crate::{Result, TrackError};
use hlrp_config::foreign::{MAX_WEIGHT_BYTES, inspect};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

/// Bytes that are hashed at a time.
const BLOCK: usize = 1 << 20;

/// What a file contained when it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal digits.
    pub sha256: String,
}

impl FileDigest {
    /// Reads the whole file.
    ///
    /// # Errors
    /// [`TrackError::Io`].
    pub fn of(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(TrackError::io("open", path))?;
        let (mut hasher, mut size, mut block) = (Sha256::new(), 0, vec![0; BLOCK]);
        loop {
            match file.read(&mut block).map_err(TrackError::io("read", path))? {
                0 => break,
                count => {
                    hasher.update(&block[..count]);
                    size += count as u64;
                }
            }
        }
        Ok(Self { size, sha256: sha256_text(&hasher.finalize()) })
    }

    /// How a file differs from what was written; none if it does not. The content is read only where the size fits.
    ///
    /// # Errors
    /// [`TrackError::Io`], but for a file that is missing or too large, which differs.
    pub fn difference(&self, path: &Path) -> Result<Option<String>> {
        let size = match inspect(path, MAX_WEIGHT_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some("the file is missing".to_owned())),
            Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(Some(error.to_string())),
            size => size.map_err(TrackError::io("inspect", path))?,
        };
        if size != self.size {
            return Ok(Some(format!("it has {size} bytes instead of {}", self.size)));
        }
        let is_intact = Self::of(path)?.sha256 == self.sha256;
        Ok((!is_intact).then(|| "its content is not what was written (sha256 differs)".to_owned()))
    }
}

/// SHA-256 of bytes in memory, in lower-case hexadecimal digits.
pub fn sha256_of(bytes: impl AsRef<[u8]>) -> String {
    sha256_text(&Sha256::digest(bytes))
}

fn sha256_text(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_sha256sum() -> std::io::Result<()> {
        const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), "abc")?;
        assert_eq!(FileDigest::of(file.path()).ok(), Some(FileDigest { size: 3, sha256: ABC.into() }));
        assert_eq!(sha256_of("abc"), ABC);
        Ok(())
    }
}
