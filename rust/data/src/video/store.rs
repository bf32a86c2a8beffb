//! The frames of one camera of a dataset whose pictures lie in video files.

use super::{VideoDecoder, VideoFile, rgb::FrameConverter};
use crate::{DataError, FrameReader, FrameSize, FrameStore, TOLERANCE_S, lerobot::Dataset, lock::lock, lru::ByteLru};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Packet tables of files that no thread has open are kept up to this many bytes (about 350,000 frames).
const MAX_INDEX_BYTES: usize = 8 << 20;

/// The frames of one camera.
pub struct VideoStore {
    dataset: Arc<Dataset>,
    size: FrameSize,
    /// Where each episode lies: which of `files`, and the time of its first frame there.
    spans: Vec<(u32, f64)>,
    files: Vec<PathBuf>,
    videos: Mutex<ByteLru<u32, Arc<VideoFile>>>,
}

impl VideoStore {
    /// The frames of `camera`, delivered in `size`.
    ///
    /// # Errors
    /// When the metadata of the videos is missing or damaged.
    pub fn new(dataset: Arc<Dataset>, camera: &str, size: FrameSize) -> Result<Self, DataError> {
        let mut files: Vec<PathBuf> = Vec::new();
        let mut last = None;
        let mut spans = Vec::with_capacity(dataset.episodes().len());
        for span in dataset.video_spans(camera)? {
            if last != Some(span.file) {
                files.push(dataset.root().join(dataset.info().video_file(camera, span.file.0, span.file.1)));
                last = Some(span.file);
            }
            spans.push((files.len() as u32 - 1, span.from_s));
        }
        let videos = Mutex::new(ByteLru::new(MAX_INDEX_BYTES, usize::MAX));
        Ok(Self { dataset, size, spans, files, videos })
    }

    /// The file that holds a row's frame, and the frame's time in it, seconds.
    pub(crate) fn locate(&self, row: u64) -> Result<(u32, f64), DataError> {
        let (file, from_s) = self.spans[self.dataset.episode_slot(row)?];
        Ok((file, from_s + f64::from(self.dataset.timestamp(row)?)))
    }

    /// Where a file lies.
    pub(crate) fn path(&self, file: u32) -> &Path {
        &self.files[file as usize]
    }

    /// The shared part of an open file.
    pub(crate) fn video(&self, file: u32) -> Result<Arc<VideoFile>, DataError> {
        if let Some(video) = lock(&self.videos).get(&file) {
            return Ok(Arc::clone(video));
        }
        let video = Arc::new(VideoFile::open(self.path(file))?);
        lock(&self.videos).put(file, Arc::clone(&video), video.index().memory_size());
        Ok(video)
    }
}

impl FrameStore for VideoStore {
    fn reader(&self, max_open: usize) -> Result<Box<dyn FrameReader + '_>, DataError> {
        Ok(Box::new(VideoReader {
            store: self,
            open: ByteLru::new(usize::MAX, max_open),
            converter: FrameConverter::default(),
            wanted: Vec::new(),
        }))
    }

    fn size(&self) -> FrameSize {
        self.size
    }
}

/// One frame of a request.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    file: u32,
    /// Time in the file, seconds.
    time_s: f64,
    /// Position in the request.
    slot: usize,
    row: u64,
    /// Position in the file's packet table.
    packet: usize,
}

struct VideoReader<'a> {
    store: &'a VideoStore,
    open: ByteLru<u32, VideoDecoder>,
    converter: FrameConverter,
    wanted: Vec<Wanted>,
}

impl FrameReader for VideoReader<'_> {
    fn read(&mut self, rows: &[u64], out_TCHW: &mut [u8]) -> Result<(), DataError> {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.clear();
        for (slot, &row) in rows.iter().enumerate() {
            let (file, time_s) = self.store.locate(row)?;
            wanted.push(Wanted { file, time_s, slot, row, packet: 0 });
        }
        wanted.sort_by(|a, b| a.file.cmp(&b.file).then(a.time_s.total_cmp(&b.time_s)));
        let done =
            wanted.chunk_by_mut(|a, b| a.file == b.file).try_for_each(|of_file| self.read_file(of_file, out_TCHW));
        self.wanted = wanted;
        done
    }
}

impl VideoReader<'_> {
    /// Reads frames of one file, sorted by time.
    fn read_file(&mut self, wanted: &mut [Wanted], out_TCHW: &mut [u8]) -> Result<(), DataError> {
        let file = wanted[0].file;
        if self.open.get(&file).is_none() {
            let decoder = VideoDecoder::open(self.store.video(file)?)?;
            self.open.put(file, decoder, 0);
        }
        let Some(decoder) = self.open.get(&file) else { return Ok(()) };
        for frame in wanted.iter_mut() {
            let index = decoder.video().index();
            frame.packet = index.nearest(frame.time_s);
            let found_s = index.time(frame.packet);
            if (found_s - frame.time_s).abs() > TOLERANCE_S {
                let what =
                    format!("the nearest picture of the video is at {found_s:.6} s, more than {TOLERANCE_S} s away");
                let hint = "the recording is out of step with its video; `hlrp data check` lists all such episodes";
                return Err(failure(self.store, frame, what, hint));
            }
        }
        // Rows at an episode's end repeat; each picture is decoded once.
        let mut packets: Vec<usize> = wanted.iter().map(|frame| frame.packet).collect();
        packets.dedup();
        let size = self.store.size;
        let frame_len = size.frame_bytes();
        let path = self.store.path(file);
        let converter = &mut self.converter;
        let decoded = decoder.decode(&packets, |nth, frame| {
            let mut first: Option<usize> = None;
            for slot in wanted.iter().filter(|wanted| wanted.packet == packets[nth]).map(|wanted| wanted.slot) {
                match first {
                    None => {
                        converter.convert(path, frame, size, &mut out_TCHW[slot * frame_len..][..frame_len])?;
                        first = Some(slot);
                    }
                    Some(first) => out_TCHW.copy_within(first * frame_len..(first + 1) * frame_len, slot * frame_len),
                }
            }
            Ok(())
        });
        decoded.map_err(|(nth, what)| {
            let frame = wanted.iter().find(|frame| frame.packet == packets[nth]).unwrap_or(&wanted[0]);
            failure(self.store, frame, what, "the video is damaged: fetch or record it again")
        })
    }
}

fn failure(store: &VideoStore, frame: &Wanted, what: String, hint: &str) -> DataError {
    DataError::Frame {
        path: store.path(frame.file).to_owned(),
        episode: store.dataset.episode_of(frame.row).map_or(0, |episode| episode.index),
        wanted_s: frame.time_s,
        what,
        hint: hint.into(),
    }
}
