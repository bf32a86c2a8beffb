//! The container of a `.wandb` file: records in LevelDB's log format, with W&B's header and checksum.
//!
//! The file begins with seven bytes. Blocks of 32 KiB, counted from the start of the file, hold chunks: a checksum (CRC-32 of type and
//! payload), a length, a type, the payload. A record that does not fit into its block goes on in the next one. A file that was cut anywhere is
//! readable up to the last whole record.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

const HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];
const BLOCK: u64 = 32 << 10;
/// Checksum, length and type of a chunk.
const CHUNK_HEADER: u64 = 7;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Appends records to a new file. Each [`LogWriter::append`] is one write to the operating system, so that a killed process leaves whole
/// records.
#[derive(Debug)]
pub(crate) struct LogWriter {
    file: File,
    position: u64,
}

impl LogWriter {
    /// # Errors
    /// The file exists, or cannot be created.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(&HEADER)?;
        Ok(Self { file, position: HEADER.len() as u64 })
    }

    /// Appends `records`.
    ///
    /// # Errors
    /// The file cannot be written; it holds none of them then.
    pub(crate) fn append<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
        let start = self.position;
        let mut bytes = Vec::new();
        for record in records {
            self.put(record, &mut bytes);
        }
        let written = self.file.write_all(&bytes);
        if written.is_err() {
            // Part of a record would hide what follows. If this fails as well, a reader skips the rest of the block.
            let _ = self.file.set_len(start);
            let _ = io::Seek::seek(&mut self.file, io::SeekFrom::Start(start));
            self.position = start;
        }
        written
    }

    /// Brings everything to the disk.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn put(&mut self, record: &[u8], bytes: &mut Vec<u8>) {
        let mut rest = record;
        let mut is_first = true;
        loop {
            let left = BLOCK - self.position % BLOCK;
            if left < CHUNK_HEADER {
                bytes.resize(bytes.len() + left as usize, 0);
                self.position += left;
                continue;
            }
            let (payload, after) = rest.split_at(rest.len().min((left - CHUNK_HEADER) as usize));
            let kind = match (is_first, after.is_empty()) {
                (true, true) => FULL,
                (true, false) => FIRST,
                (false, true) => LAST,
                (false, false) => MIDDLE,
            };
            bytes.extend(checksum(kind, payload).to_le_bytes());
            bytes.extend((payload.len() as u16).to_le_bytes());
            bytes.push(kind);
            bytes.extend(payload);
            self.position += CHUNK_HEADER + payload.len() as u64;
            (rest, is_first) = (after, false);
            if rest.is_empty() {
                return;
            }
        }
    }
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(payload);
    crc.finalize()
}

/// Reads the records of a file that may still grow.
#[derive(Debug)]
pub(crate) struct LogReader {
    file: File,
    position: u64,
}

/// What follows in a file.
enum Chunk {
    Whole {
        kind: u8,
        payload: Vec<u8>,
        end: u64,
    },
    /// Damaged; the next block may be whole.
    Damaged,
    /// The file ends here, as yet.
    End,
}

impl LogReader {
    /// # Errors
    /// The file cannot be opened, or is not a `.wandb` file. One that is shorter than its header has no records yet.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; HEADER.len()];
        if read_up_to(&file, &mut header, 0)? == header.len() && header != HEADER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not begin as a .wandb file does"));
        }
        Ok(Self { file, position: HEADER.len() as u64 })
    }

    /// The next record; none at the end of the file, or where a record is not whole yet. Damaged blocks are skipped.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut record = Vec::new();
        let mut position = self.position;
        let mut is_open = false;
        loop {
            match self.chunk(position)? {
                Chunk::End => return Ok(None),
                Chunk::Damaged => {
                    position = (position / BLOCK + 1) * BLOCK;
                    (self.position, is_open) = (position, false);
                }
                Chunk::Whole { kind, payload, end } => {
                    position = end;
                    match (kind, is_open) {
                        (FULL, _) => (record, is_open) = (payload, true),
                        (FIRST, _) => (record, is_open) = (payload, true),
                        (MIDDLE | LAST, true) => record.extend(payload),
                        _ => {} // the rest of a record whose beginning is damaged
                    }
                    if is_open && (kind == FULL || kind == LAST) {
                        self.position = position;
                        return Ok(Some(record));
                    }
                }
            }
        }
    }

    fn chunk(&self, mut position: u64) -> io::Result<Chunk> {
        let left = BLOCK - position % BLOCK;
        if left < CHUNK_HEADER {
            position += left;
        }
        let mut header = [0; CHUNK_HEADER as usize];
        if read_up_to(&self.file, &mut header, position)? < header.len() {
            return Ok(Chunk::End);
        }
        let [c0, c1, c2, c3, l0, l1, kind] = header;
        let (crc, length) = (u32::from_le_bytes([c0, c1, c2, c3]), u16::from_le_bytes([l0, l1]));
        let start = position + CHUNK_HEADER;
        if !(FULL..=LAST).contains(&kind) || start % BLOCK + u64::from(length) > BLOCK {
            return Ok(Chunk::Damaged);
        }
        let mut payload = vec![0; length.into()];
        if read_up_to(&self.file, &mut payload, start)? < payload.len() {
            return Ok(Chunk::End);
        }
        if checksum(kind, &payload) != crc {
            return Ok(Chunk::Damaged);
        }
        Ok(Chunk::Whole { kind, payload, end: start + u64::from(length) })
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], position + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    fn records(path: &Path) -> Vec<Vec<u8>> {
        let mut reader = LogReader::open(path).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    /// Records of these sizes end 0 to 8 bytes before the end of the first block, and one is longer than three blocks.
    fn written(path: &Path, left: u64) -> Vec<Vec<u8>> {
        let first = (BLOCK - HEADER.len() as u64 - CHUNK_HEADER - left) as usize;
        let records: Vec<Vec<u8>> = [first, 0, 5, 100_000, 1].iter().map(|size| vec![*size as u8; *size]).collect();
        let mut writer = LogWriter::create(path).unwrap();
        writer.append([records[0].as_slice()]).unwrap();
        writer.append(records[1..].iter().map(Vec::as_slice)).unwrap();
        writer.sync().unwrap();
        records
    }

    #[test]
    fn records_are_read_back_wherever_a_block_ends() {
        let dir = tempfile::tempdir().unwrap();
        for left in 0..=8 {
            let path = dir.path().join(format!("{left}.wandb"));
            let expected = written(&path, left);
            assert_eq!(records(&path), expected, "{left} bytes are left in the first block");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_read_up_to_its_last_whole_record_and_on_when_it_has_grown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("whole.wandb");
        let whole = written(&path, 3);
        let bytes = std::fs::read(&path).unwrap();
        let cut = dir.path().join("cut.wandb");
        for length in [0, 3, 7, 9, 32_000, 32_768, 40_000, 99_000, bytes.len() - 1] {
            std::fs::write(&cut, &bytes[..length]).unwrap();
            let mut reader = LogReader::open(&cut).unwrap();
            let before: Vec<_> = std::iter::from_fn(|| reader.next().unwrap()).collect();
            assert!(before.len() < whole.len() && whole.starts_with(&before), "cut at {length}");
            OpenOptions::new().append(true).open(&cut).unwrap().write_all(&bytes[length..]).unwrap();
            let after: Vec<_> = std::iter::from_fn(|| reader.next().unwrap()).collect();
            assert_eq!([before, after].concat(), whole, "cut at {length}");
        }
    }

    #[test]
    fn a_damaged_block_costs_only_its_own_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("damaged.wandb");
        let whole = written(&path, 3);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(records(&path), whole[1..]);
        std::fs::write(&path, b"metrics").unwrap();
        assert_eq!(LogReader::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
