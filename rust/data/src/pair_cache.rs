//! What was computed of frame pairs and is wanted again at every epoch, such as a teacher's flow: numbers of fixed length, by the row of a pair's
//! first frame.
//!
//! One sparse file `<dir>/<dataset>-<key>.pairs` for each source: a header that names the dataset, the frames of a pair and the computation, then a
//! slot for each row: checksum, `float32` numbers (integers are little-endian). A slot whose checksum does not match was not wholly written and counts
//! as empty, so that several processes may fill a file at the same time, and may be killed. Nothing is ever deleted.

use crate::batch::SampleMeta;
use crate::error::DataError;
use crate::hub::locate;
use crate::mixture::Mixture;
use crate::resize::PREPROCESS_ID;
use crate::source::{Source, Split};
use hlrp_schema::SourceConfig;
use hlrp_track::fs::{DiskRules, ensure_free};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

/// What to do where the pairs do not fit.
const SPACE: &str = "lower the limit of the cache, or choose a folder on a larger disk for it";
/// First bytes of a file.
const MAGIC: &[u8; 8] = b"hlrppai1";
/// Magic, length of the JSON text, checksum of the JSON text.
const PREFIX_BYTES: usize = 24;
/// Longest JSON text of a header.
const MAX_JSON_BYTES: u64 = 1 << 16;
/// Slots begin at a multiple of this.
const PAGE_BYTES: usize = 4096;
/// Checksum of a slot.
const CHECKSUM_BYTES: usize = 8;

/// What is cached, and where.
pub struct PairCacheSpec<'a> {
    /// Folder of the files.
    pub dir: &'a Path,
    /// Most bytes that the pairs of all sources may have together; the pairs of the first rows of each source have a place.
    pub max_bytes: u64,
    /// Roles of the cameras whose frames are used, in their order.
    pub cameras: &'a [String],
    /// What is computed: all that the numbers depend on besides the frames.
    pub computation: Value,
    /// Numbers of a pair.
    pub num_values: usize,
}

/// The open files of a run.
pub struct PairCache {
    files: BTreeMap<String, PairFile>,
    num_values: usize,
}

impl PairCache {
    /// Opens or begins the file of every source of `mixture`, whose sections are `sources`.
    ///
    /// # Errors
    /// A file that cannot be written, is damaged or is of another dataset or computation; or a disk without room for all pairs that have a place.
    pub fn open(
        mixture: &Mixture,
        sources: &BTreeMap<String, SourceConfig>,
        spec: &PairCacheSpec<'_>,
        disk: &DiskRules,
    ) -> Result<Self, DataError> {
        fs::create_dir_all(spec.dir).map_err(DataError::io(spec.dir))?;
        let slot_bytes = (CHECKSUM_BYTES + spec.num_values * size_of::<f32>()) as u64;
        let num_rows: u64 = mixture.sources().iter().map(|source| source.description().num_frames).sum();
        let num_places = (spec.max_bytes / slot_bytes).min(num_rows);
        let open = |source: &Source| {
            let own_rows = source.description().num_frames;
            let own_places = u128::from(own_rows) * u128::from(num_places) / u128::from(num_rows.max(1));
            let config = sources.get(source.name());
            let identity = identity(source, config, mixture, spec);
            let name = match config {
                Some(config) => locate(source.name(), config)?.name()?.into_owned(),
                None => source.name().to_owned(),
            };
            let file = PairFile::open(spec, source, &name, &identity, own_places as u64, disk)?;
            Ok((source.name().to_owned(), file))
        };
        let files = mixture.sources().iter().map(open).collect::<Result<_, DataError>>()?;
        Ok(Self { files, num_values: spec.num_values })
    }

    /// The numbers of a pair; none where it has none yet.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&self, meta: &SampleMeta) -> Result<Option<Vec<f32>>, DataError> {
        let Some((file, row)) = self.place(meta) else { return Ok(None) };
        let mut slot = vec![0; CHECKSUM_BYTES + self.num_values * size_of::<f32>()];
        file.file.read_exact_at(&mut slot, file.offset(row)).map_err(DataError::io(&file.path))?;
        let (found, values) = slot.split_at(CHECKSUM_BYTES);
        if found != checksum(row, values) {
            return Ok(None);
        }
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap_or_default());
        Ok(Some(values.chunks_exact(size_of::<f32>()).map(number).collect()))
    }

    /// Keeps the numbers of a pair, if it has a place.
    ///
    /// # Errors
    /// A file that cannot be written.
    ///
    /// # Panics
    /// When there are not as many numbers as the cache has for each pair.
    pub fn write(&self, meta: &SampleMeta, values: &[f32]) -> Result<(), DataError> {
        assert_eq!(values.len(), self.num_values, "numbers of a pair");
        let Some((file, row)) = self.place(meta) else { return Ok(()) };
        let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let slot = [&checksum(row, &values)[..], &values].concat();
        file.file.write_all_at(&slot, file.offset(row)).map_err(DataError::io(&file.path))
    }

    /// The file of a pair and its row.
    fn place(&self, meta: &SampleMeta) -> Option<(&PairFile, u64)> {
        let file = self.files.get(&meta.source)?;
        let row = file.first_rows.get(&meta.episode)? + meta.frame;
        (row < file.num_places).then_some((file, row))
    }
}

/// What names the contents of a file.
fn identity(source: &Source, config: Option<&SourceConfig>, mixture: &Mixture, spec: &PairCacheSpec<'_>) -> Value {
    let key_of = |role| config.and_then(|config| config.cameras.get(role));
    let size = mixture.layout().size;
    let pair: Vec<i64> = source.request.image_deltas.iter().take(2).copied().collect();
    json!({
        "dataset": source.description().fingerprint,
        "num_frames": source.description().num_frames,
        "cameras": spec.cameras.iter().map(key_of).collect::<Vec<_>>(),
        "tolerance_s": config.and_then(|config| config.tolerance_s),
        "frames_of_a_pair": pair,
        "height": size.height,
        "width": size.width,
        "preprocess": PREPROCESS_ID,
        "computation": spec.computation,
        "num_values": spec.num_values,
    })
}

/// Never that of a slot of zeros, as an empty one is.
fn checksum(row: u64, values: &[u8]) -> [u8; CHECKSUM_BYTES] {
    xxh3_64_with_seed(values, row).max(1).to_le_bytes()
}

/// The file of one source.
struct PairFile {
    path: PathBuf,
    file: File,
    /// Row of each episode's first frame.
    first_rows: HashMap<u64, u64>,
    /// Rows from the first on that may be written.
    num_places: u64,
    header_bytes: u64,
    slot_bytes: u64,
}

impl PairFile {
    fn open(
        spec: &PairCacheSpec<'_>,
        source: &Source,
        name: &str,
        identity: &Value,
        num_places: u64,
        disk: &DiskRules,
    ) -> Result<Self, DataError> {
        let json = identity.to_string().into_bytes();
        let path = spec.dir.join(format!("{name}-{:016x}.pairs", xxh3_128(&json) >> 64));
        let io = |error| DataError::Io { path: path.clone(), source: error };
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
        let header = header(&json);
        let slot_bytes = (CHECKSUM_BYTES + spec.num_values * size_of::<f32>()) as u64;
        let len = header.len() as u64 + source.description().num_frames * slot_bytes;
        // Another process may begin the same file.
        file.lock().map_err(io)?;
        begin_or_check(&file, &path, &header, identity, len)?;
        file.unlock().map_err(io)?;
        let present = file.metadata().map_err(io)?.blocks() * 512;
        let needed = (num_places * slot_bytes).saturating_sub(present);
        ensure_free(&path, needed, disk).map_err(DataError::space(SPACE))?;
        let spans = [source.episodes(Split::Train), source.episodes(Split::Validation)].concat();
        let first_rows = spans.iter().map(|span| (span.episode, span.from_row)).collect();
        Ok(Self { file, first_rows, num_places, header_bytes: header.len() as u64, slot_bytes, path })
    }

    fn offset(&self, row: u64) -> u64 {
        self.header_bytes + row * self.slot_bytes
    }
}

/// The bytes of a file before its slots.
fn header(json: &[u8]) -> Vec<u8> {
    let mut header = [MAGIC, &(json.len() as u64).to_le_bytes()[..], &xxh3_64(json).to_le_bytes(), json].concat();
    header.resize(header.len().next_multiple_of(PAGE_BYTES), 0);
    header
}

/// Writes the header of an empty file, or compares that of an old one.
fn begin_or_check(file: &File, path: &Path, header: &[u8], identity: &Value, len: u64) -> Result<(), DataError> {
    let io = |error| DataError::Io { path: path.to_owned(), source: error };
    let found_len = file.metadata().map_err(io)?.len();
    let mut found = vec![0; header.len().min(usize::try_from(found_len).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut found, 0).map_err(io)?;
    if found_len == 0 {
        file.set_len(len).map_err(io)?;
    }
    // A process that was killed before it wrote the header leaves zeros.
    if found_len == 0 || found_len == len && found.iter().all(|byte| *byte == 0) {
        return file.write_all_at(header, 0).map_err(io);
    }
    let refused = |what: String| {
        Err(DataError::file(path, what, "move the file away, or choose another folder; it is then filled again"))
    };
    match identity_in(file, found_len) {
        None => refused("is damaged, or not a cache of frame pairs of this version".to_owned()),
        Some(of_file) if of_file != *identity => refused(difference(&of_file, identity)),
        Some(_) if found_len != len => refused(format!("has {found_len} bytes instead of {len}")),
        Some(_) => Ok(()),
    }
}

/// What a file says of itself.
fn identity_in(file: &File, len: u64) -> Option<Value> {
    let mut prefix = [0; PREFIX_BYTES];
    file.read_exact_at(&mut prefix, 0).ok()?;
    let (magic, rest) = prefix.split_at(MAGIC.len());
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    let (json_len, digest) = (number(&rest[..8])?, number(&rest[8..])?);
    if magic != MAGIC || json_len > MAX_JSON_BYTES.min(len) {
        return None;
    }
    let mut json = vec![0; usize::try_from(json_len).ok()?];
    file.read_exact_at(&mut json, PREFIX_BYTES as u64).ok()?;
    (xxh3_64(&json) == digest).then(|| serde_json::from_slice(&json).ok())?
}

/// In what a file differs from what a run needs.
fn difference(of_file: &Value, needed: &Value) -> String {
    if of_file["dataset"] != needed["dataset"] {
        return format!("is a cache of another dataset: {}, and not {}", of_file["dataset"], needed["dataset"]);
    }
    let keys = needed.as_object().into_iter().flat_map(serde_json::Map::keys);
    let differs = |key: &&String| of_file.get(key.as_str()) != needed.get(key.as_str());
    keys.filter(differs)
        .map(|key| format!("is a cache with another `{key}`: {}, and not {}", of_file[key], needed[key]))
        .next()
        .unwrap_or_else(|| "is a cache of something else".to_owned())
}
