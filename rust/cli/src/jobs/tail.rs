//! A file that somebody appends to, read line by line.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// How much is read at once, in bytes.
const CHUNK: u64 = 1 << 20;

/// The position in such a file.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    /// Inode of the file that was read: another file of the same name is read from its beginning.
    inode: Option<u64>,
    offset: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Tail {
    /// From the beginning of `path`, which need not exist yet.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), inode: None, offset: 0, rest: Vec::new() }
    }

    /// The whole lines that were added since the last call, empty if there are none; a call returns at most a mebibyte.
    ///
    /// # Errors
    /// The system refuses; a missing file is an empty one.
    pub(super) fn read(&mut self) -> io::Result<String> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
            file => file?,
        };
        let meta = file.metadata()?;
        if self.inode.is_some_and(|inode| inode != meta.ino()) || meta.len() < self.offset {
            (self.offset, self.rest) = (0, Vec::new());
        }
        self.inode = Some(meta.ino());
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.take(CHUNK).read_to_end(&mut self.rest)? as u64;
        let whole = self.rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        Ok(String::from_utf8_lossy(&lines).into_owned())
    }

    /// What stands after the last whole line, if anything: a process that was killed has left it.
    pub(super) fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Tail;
    use std::{
        fs::{self, OpenOptions},
        io::Write,
    };

    #[test]
    fn lines_come_whole_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.out");
        let mut tail = Tail::new(&path);
        assert_eq!(tail.read().unwrap(), "");
        let append = |text: &str| {
            OpenOptions::new().create(true).append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        };
        append("one\ntw");
        assert_eq!(tail.read().unwrap(), "one\n");
        assert_eq!(tail.read().unwrap(), "");
        append("o\nthree");
        assert_eq!(tail.read().unwrap(), "two\n");
        assert_eq!(tail.rest(), "three");
        assert_eq!(tail.rest(), "");
    }

    #[test]
    fn a_file_that_was_truncated_or_replaced_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.out");
        fs::write(&path, "a long first line\n").unwrap();
        let mut tail = Tail::new(&path);
        assert_eq!(tail.read().unwrap(), "a long first line\n");
        fs::write(&path, "again\n").unwrap();
        assert_eq!(tail.read().unwrap(), "again\n");
        fs::write(dir.path().join("new"), "another file, and a longer one\n").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(tail.read().unwrap(), "another file, and a longer one\n");
    }
}
