//! The frame cache holds the decoded frames bit for bit, survives being killed and shared, and never serves damaged frames unnoticed.
#![allow(clippy::unwrap_used, non_snake_case)]

mod fake;

use fake::{Behaviour, FRAME_BYTES, FakeCamera, FakeDataset, SIZE, pixel};
use hlrp_config::with_hint;
use hlrp_data::formats::{self, OpenOptions};
use hlrp_data::{
    BuildOptions, CacheSpec, DataError, DiskRules, EpisodeSpan, FrameCache, FrameReader, FrameSize, FrameStore,
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Frames in memory that remember which rows were read.
struct Recorder {
    camera: FakeCamera,
    rows: Mutex<Vec<u64>>,
}

struct RecorderHandle<'a>(&'a Recorder);

impl FrameStore for RecorderHandle<'_> {
    fn reader(&self, max_open: usize) -> Result<Box<dyn FrameReader + '_>, DataError> {
        Ok(Box::new(RecordingReader(self.0, self.0.camera.reader(max_open)?)))
    }
    fn size(&self) -> FrameSize {
        SIZE
    }
}

struct RecordingReader<'a>(&'a Recorder, Box<dyn FrameReader + 'a>);

impl FrameReader for RecordingReader<'_> {
    fn read(&mut self, rows: &[u64], out_TCHW: &mut [u8]) -> Result<(), DataError> {
        self.0.rows.lock().unwrap().extend(rows);
        self.1.read(rows, out_TCHW)
    }
}

/// A dataset's folder, a cache folder, and frames.
struct Setting {
    dir: TempDir,
    spans: Vec<EpisodeSpan>,
    behaviour: Behaviour,
    max_bad_frames: u64,
}

impl Setting {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let spans = FakeDataset::new(&[40, 3, 70, 8, 25]).spans;
        Self { dir, spans, behaviour: Behaviour::default(), max_bad_frames: 0 }
    }

    fn cache_dir(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn spec(&self) -> CacheSpec {
        CacheSpec::new("robot", "fingerprint", "top", SIZE, "identity-v1", self.spans.clone())
    }

    fn path(&self) -> PathBuf {
        self.spec().path(&self.cache_dir())
    }

    /// Opens the cache, building it with two threads; and the rows that were decoded for it.
    fn build(&self) -> (Result<FrameCache, DataError>, Vec<u64>) {
        let recorder = Recorder {
            camera: FakeCamera { camera: 5, behaviour: self.behaviour.clone() },
            rows: Mutex::new(Vec::new()),
        };
        let options = BuildOptions {
            num_workers: 2,
            max_open_decoders: 1,
            max_bad_frames: self.max_bad_frames,
            disk: &DiskRules::unlimited(),
            progress: &|_, _| {},
        };
        let frames = || Ok(Box::new(RecorderHandle(&recorder)) as Box<dyn FrameStore + '_>);
        let cache = FrameCache::open_or_build(&self.cache_dir(), &self.spec(), frames, &options);
        let mut rows = recorder.rows.lock().unwrap().clone();
        rows.sort_unstable();
        (cache, rows)
    }
}

fn read(cache: &FrameCache, rows: &[u64]) -> Result<Vec<u8>, DataError> {
    let mut pixels = vec![0; rows.len() * FRAME_BYTES];
    cache.reader(1)?.read(rows, &mut pixels)?;
    Ok(pixels)
}

fn decoded(rows: &[u64]) -> Vec<u8> {
    rows.iter().flat_map(|&row| (0..FRAME_BYTES).map(move |offset| pixel(5, row, offset))).collect()
}

fn rows_of(spans: &[EpisodeSpan]) -> Vec<u64> {
    spans.iter().flat_map(|span| span.from_row..span.to_row).collect()
}

fn file_names(dir: &Path) -> BTreeSet<String> {
    let extension = |path: PathBuf| path.extension().unwrap().to_string_lossy().into_owned();
    fs::read_dir(dir).unwrap().map(|entry| extension(entry.unwrap().path())).collect()
}

/// Writes `bytes` into a file at `offset`.
fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn cached_frames_equal_decoded_frames_bit_for_bit() {
    let setting = Setting::new();
    let (cache, decoded_rows) = setting.build();
    let cache = cache.unwrap();
    let all = rows_of(&setting.spans);
    assert_eq!(decoded_rows, all, "every frame is decoded once");
    assert_eq!(read(&cache, &all).unwrap(), decoded(&all));
    assert_eq!(read(&cache, &[145, 0, 41]).unwrap(), decoded(&[145, 0, 41]));
    cache.verify(&|_, _| {}).unwrap();
    assert_eq!(file_names(&setting.cache_dir()), ["frames", "lock"].map(String::from).into());
}

#[test]
fn a_finished_cache_decodes_nothing() {
    let setting = Setting::new();
    setting.build().0.unwrap();
    let (cache, decoded_rows) = setting.build();
    assert_eq!(read(&cache.unwrap(), &[7]).unwrap(), decoded(&[7]));
    assert!(decoded_rows.is_empty());
}

#[test]
fn chosen_episodes_alone_are_cached() {
    let mut setting = Setting::new();
    setting.spans = vec![setting.spans[3], setting.spans[1]];
    let (cache, decoded_rows) = setting.build();
    let cache = cache.unwrap();
    assert_eq!(decoded_rows, rows_of(&[setting.spans[1], setting.spans[0]]));
    assert_eq!(read(&cache, &[113, 42]).unwrap(), decoded(&[113, 42]));
    for row in [0, 39, 43, 112, 121] {
        assert!(read(&cache, &[row]).unwrap_err().to_string().contains(&format!("row {row} belongs to no episode")));
    }
}

#[test]
fn a_stopped_build_goes_on_with_what_is_missing() {
    let mut setting = Setting::new();
    // The last episode cannot be decoded: the build stops there and keeps the others.
    setting.behaviour.broken_rows = [130].into();
    let error = setting.build().0.err().unwrap().to_string();
    assert!(error.contains("row 130 is broken"), "{error}");
    assert!(!setting.path().exists());

    setting.behaviour.broken_rows.clear();
    let (cache, decoded_rows) = setting.build();
    assert_eq!(decoded_rows, rows_of(&setting.spans[4..]));
    let all = rows_of(&setting.spans);
    assert_eq!(read(&cache.unwrap(), &all).unwrap(), decoded(&all));
}

#[test]
fn what_a_kill_left_half_written_is_decoded_again() {
    let mut setting = Setting::new();
    setting.behaviour.broken_rows = [130].into();
    assert!(setting.build().0.is_err());
    let partial = setting.spec().partial_path(&setting.cache_dir());
    // Episode 2 has its record, but the disk lost a part of its frames; the header page holds the frames' start.
    let header_bytes = 4096;
    overwrite(&partial, header_bytes + 60 * FRAME_BYTES as u64, &[9; 50]);
    setting.behaviour.broken_rows.clear();
    let (cache, decoded_rows) = setting.build();
    assert_eq!(decoded_rows, rows_of(&[setting.spans[2], setting.spans[4]]));
    let all = rows_of(&setting.spans);
    assert_eq!(read(&cache.unwrap(), &all).unwrap(), decoded(&all));
}

#[test]
fn a_build_that_was_killed_before_its_first_frame_begins_anew() {
    for left in [vec![], vec![0; 4096]] {
        let setting = Setting::new();
        fs::create_dir_all(setting.cache_dir()).unwrap();
        fs::write(setting.spec().partial_path(&setting.cache_dir()), left).unwrap();
        let all = rows_of(&setting.spans);
        assert_eq!(read(&setting.build().0.unwrap(), &all).unwrap(), decoded(&all));
    }
}

#[test]
fn two_builders_decode_every_frame_once() {
    let mut setting = Setting::new();
    setting.behaviour.delay = Duration::from_micros(200);
    let results = thread::scope(|scope| {
        let builders: Vec<_> = (0..2).map(|_| scope.spawn(|| setting.build())).collect();
        builders.into_iter().map(|builder| builder.join().unwrap()).collect::<Vec<_>>()
    });
    let all = rows_of(&setting.spans);
    let mut num_decoded = 0;
    for (cache, decoded_rows) in results {
        num_decoded += decoded_rows.len();
        assert_eq!(read(&cache.unwrap(), &all).unwrap(), decoded(&all));
    }
    assert_eq!(num_decoded, all.len());
}

#[test]
fn frames_that_cannot_be_decoded_are_left_out_up_to_the_limit() {
    let mut setting = Setting::new();
    setting.behaviour.broken_rows = [5, 50].into();
    setting.max_bad_frames = 1;
    assert!(setting.build().0.is_err());
    setting.max_bad_frames = 2;
    let cache = setting.build().0.unwrap();
    let error = with_hint(&read(&cache, &[4, 5]).unwrap_err());
    assert!(error.contains("frame 5 of episode 0 could not be decoded when the cache was built\nhint: "), "{error}");
    let good: Vec<u64> = rows_of(&setting.spans).into_iter().filter(|row| ![5, 50].contains(row)).collect();
    assert_eq!(read(&cache, &good).unwrap(), decoded(&good));
    cache.verify(&|_, _| {}).unwrap();
}

#[test]
fn a_damaged_cache_is_an_error_that_names_the_file_and_deletes_nothing() {
    let len = {
        let setting = Setting::new();
        setting.build().0.unwrap();
        fs::metadata(setting.path()).unwrap().len()
    };
    type Damage = Box<dyn Fn(&Path)>;
    let damages: [(&str, Damage); 4] = [
        ("is not a frame cache", Box::new(|path| overwrite(path, 0, b"zip"))),
        ("header is damaged", Box::new(|path| overwrite(path, 30, b"???"))),
        (
            "bytes instead of",
            Box::new(move |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len - 1).unwrap()),
        ),
        ("record of episode 4 is damaged", Box::new(move |path| overwrite(path, len - 3, b"??"))),
    ];
    for (wanted, damage) in damages {
        let setting = Setting::new();
        setting.build().0.unwrap();
        damage(&setting.path());
        let before = fs::read(setting.path()).unwrap();
        let error = with_hint(&setting.build().0.err().unwrap());
        assert!(error.starts_with(&setting.path().display().to_string()) && error.contains(wanted), "{error}");
        assert!(error.contains("hint: move the file away"), "{error}");
        assert_eq!(fs::read(setting.path()).unwrap(), before);
    }
}

#[test]
fn verification_finds_a_flipped_bit() {
    let setting = Setting::new();
    setting.build().0.unwrap();
    overwrite(&setting.path(), 4096 + 45 * FRAME_BYTES as u64, &[decoded(&[45])[0] ^ 1]);
    let error = FrameCache::open(&setting.path(), &setting.spec()).unwrap().verify(&|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("the frames of episode 2 do not match their checksum"), "{error}");
}

#[test]
fn other_contents_get_another_file() {
    let setting = Setting::new();
    let of = |fingerprint: &str, camera: &str, size, preprocess: &str, spans: &[EpisodeSpan]| {
        CacheSpec::new("robot", fingerprint, camera, size, preprocess, spans.to_vec()).path(Path::new("cache"))
    };
    let spec =
        |camera: &str, size, preprocess: &str, spans: &[EpisodeSpan]| of("data", camera, size, preprocess, spans);
    let larger = FrameSize { height: 8, ..SIZE };
    let paths = [
        spec("top", SIZE, "identity-v1", &setting.spans),
        spec("wrist", SIZE, "identity-v1", &setting.spans),
        spec("top", larger, "identity-v1", &setting.spans),
        spec("top", SIZE, "identity-v2", &setting.spans),
        spec("top", SIZE, "identity-v1", &setting.spans[1..]),
        of("other data", "top", SIZE, "identity-v1", &setting.spans),
    ];
    assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len());
    assert!(paths.iter().all(|path| path.to_string_lossy().starts_with("cache/robot-")));
}

#[test]
fn progress_counts_up_to_all_frames() {
    let setting = Setting::new();
    let seen = Mutex::new(Vec::new());
    let progress = |done, total| seen.lock().unwrap().push((done, total));
    let options = BuildOptions {
        num_workers: 1,
        max_open_decoders: 1,
        max_bad_frames: 0,
        disk: &DiskRules::unlimited(),
        progress: &progress,
    };
    let camera = || Ok(Box::new(FakeCamera { camera: 5, behaviour: Behaviour::default() }) as Box<dyn FrameStore>);
    FrameCache::open_or_build(&setting.cache_dir(), &setting.spec(), camera, &options).unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.len() > 5);
    assert_eq!(seen.last(), Some(&(146, 146)));
}

#[test]
fn a_disk_that_is_too_full_is_refused_before_anything_is_decoded() {
    let mut setting = Setting::new();
    // 18 EiB of frames.
    setting.spans = vec![EpisodeSpan { episode: 0, from_row: 0, to_row: u64::MAX / FRAME_BYTES as u64 - 1000 }];
    let (cache, decoded_rows) = setting.build();
    let error = with_hint(&cache.err().unwrap());
    assert!(error.contains("must leave 0.00 GiB\nhint: put frame caches on a larger disk (data.cache.dir"), "{error}");
    assert!(decoded_rows.is_empty() && !setting.spec().partial_path(&setting.cache_dir()).exists());
}

/// A copy of a small dataset with several files for each camera.
fn copy_of_stress(dir: &Path) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            if from.is_dir() { copy(&from, &to) } else { fs::copy(&from, &to).map(drop).unwrap() }
        }
    }
    let root = dir.join("stress");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/stress_v3"), &root);
    root
}

#[test]
fn a_cache_is_that_of_the_files_as_they_are() {
    let dir = TempDir::new().unwrap();
    let root = copy_of_stress(dir.path());
    let camera = "observation.images.top";
    // Of the first and of the last episode.
    let named = || {
        let dataset = formats::open(&root, &OpenOptions::new(0)).unwrap();
        let episodes = dataset.episodes();
        [episodes.first(), episodes.last()]
            .map(|span| dataset.fingerprint_of_frames(camera, &[*span.unwrap()]).unwrap())
    };
    let first_video = root.join(format!("videos/{camera}/chunk-000/file-000.mp4"));
    let [first, last] = named();
    assert_eq!(named()[0], first, "the same files are the same frames");
    let content = fs::read(&first_video).unwrap();

    // A byte in the middle changes the time of the file alone.
    let middle = content.len() / 2;
    overwrite(&first_video, middle as u64, &[content[middle] ^ 1]);
    let file = fs::File::options().write(true).open(&first_video).unwrap();
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(5)).unwrap();
    let [touched, untouched] = named();
    assert_ne!(touched, first);
    assert_eq!(untouched, last, "an episode in other files keeps its cache");

    fs::write(&first_video, &content[..content.len() - 1]).unwrap();
    assert!(![&touched, &first].contains(&&named()[0]), "another size");
}

#[test]
fn what_must_stay_free_stays_free() {
    let setting = Setting::new();
    let options = BuildOptions {
        num_workers: 1,
        max_open_decoders: 1,
        max_bad_frames: 0,
        disk: &DiskRules { min_free_gb: 1e9, ..DiskRules::unlimited() },
        progress: &|_, _| {},
    };
    let camera = || Ok(Box::new(FakeCamera { camera: 5, behaviour: Behaviour::default() }) as Box<dyn FrameStore>);
    let cache = FrameCache::open_or_build(&setting.cache_dir(), &setting.spec(), camera, &options);
    let error = with_hint(&cache.err().unwrap());
    assert!(error.contains("must leave 1000000000.00 GiB"), "{error}");
    assert!(!setting.spec().partial_path(&setting.cache_dir()).exists(), "not one byte was written");
}
