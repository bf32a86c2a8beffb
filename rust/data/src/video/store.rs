//! The frames of one camera whose images are in video files.

use super::{
    container::Turn,
    file::{VideoDecoder, VideoFile},
    rgb::FrameConverter,
};
use crate::error::{DataError, FrameFailure};
use crate::frames::{FrameReader, FrameSize, FrameStore};
use crate::read_at::ReadAt;
use crate::request::float32_error;
use crate::{lock::lock, lru::ByteLru};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Packet tables of files that no thread has open are kept up to this many bytes (about 350,000 frames).
const MAX_INDEX_BYTES: usize = 8 << 20;

/// Where the frames of one camera are: in which video file, and at which time.
pub trait VideoTable: Send + Sync {
    /// The file with a row's frame, and the frame's time in it, seconds.
    ///
    /// # Errors
    /// The row does not exist, or its time cannot be read.
    fn locate(&self, row: u64) -> Result<(u32, f64), DataError>;

    /// Path of a file.
    fn path(&self, file: u32) -> &Path;

    /// Opens a file. One that is not a regular file of the dataset is refused.
    ///
    /// # Errors
    /// Names the file.
    fn open(&self, file: u32) -> Result<Box<dyn ReadAt>, DataError>;

    /// Index of the episode of a row, for errors.
    fn episode(&self, row: u64) -> u64;
}

/// The frames of one camera.
pub struct VideoStore {
    table: Box<dyn VideoTable>,
    size: FrameSize,
    tolerance_s: f64,
    videos: Mutex<ByteLru<u32, Arc<VideoFile>>>,
}

impl VideoStore {
    /// The frames that `table` lists, delivered in `size`. A frame's time in its file may be `tolerance_s` from the row's.
    #[must_use]
    pub fn new(table: Box<dyn VideoTable>, size: FrameSize, tolerance_s: f64) -> Self {
        Self { table, size, tolerance_s, videos: Mutex::new(ByteLru::new(MAX_INDEX_BYTES, usize::MAX)) }
    }

    /// The shared part of an open file.
    fn video(&self, file: u32) -> Result<Arc<VideoFile>, DataError> {
        if let Some(video) = lock(&self.videos).get(&file) {
            return Ok(Arc::clone(video));
        }
        let video = Arc::new(VideoFile::open(self.table.path(file), self.table.open(file)?)?);
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
            let (file, time_s) = self.store.table.locate(row)?;
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
            let tolerance_s = self.store.tolerance_s;
            if (found_s - frame.time_s).abs() > tolerance_s + float32_error(frame.time_s) {
                let what =
                    format!("the nearest frame of the video is at {found_s:.6} s, more than {tolerance_s} s away");
                let hint = "the recording is out of step with its video; `hlrp data check` lists all such episodes, and \
                            data.sources.<name>.tolerance_s allows more";
                return Err(error_of(self.store, frame, FrameFailure { what, hint }));
            }
        }
        // Rows at an episode's end repeat; each frame is decoded once.
        let mut packets: Vec<usize> = wanted.iter().map(|frame| frame.packet).collect();
        packets.dedup();
        let size = self.store.size;
        let frame_len = size.frame_bytes();
        let path = self.store.table.path(file);
        let converter = &mut self.converter;
        let (turn, shown) = (decoder.video().turn(), decoder.shown_size());
        let decoded = decoder.decode(&packets, |nth, frame| {
            check_size(frame, turn, shown)?;
            let mut first: Option<usize> = None;
            for slot in wanted.iter().filter(|wanted| wanted.packet == packets[nth]).map(|wanted| wanted.slot) {
                match first {
                    None => {
                        converter.convert(path, frame, turn, size, &mut out_TCHW[slot * frame_len..][..frame_len])?;
                        first = Some(slot);
                    }
                    Some(first) => out_TCHW.copy_within(first * frame_len..(first + 1) * frame_len, slot * frame_len),
                }
            }
            Ok(())
        });
        decoded.map_err(|(nth, failure)| {
            let frame = wanted.iter().find(|frame| frame.packet == packets[nth]).unwrap_or(&wanted[0]);
            error_of(self.store, frame, failure)
        })
    }
}

/// Frames must have the size in the header of their file, as in LeRobot.
fn check_size(frame: &ffmpeg_next::frame::Video, turn: Turn, shown: FrameSize) -> Result<(), FrameFailure> {
    let found = turn.apply(FrameSize { height: frame.height() as usize, width: frame.width() as usize });
    if found == shown {
        return Ok(());
    }
    let what = format!(
        "the frame is {}x{}, but the video begins with frames of {}x{}",
        found.width, found.height, shown.width, shown.height
    );
    Err(FrameFailure { what, hint: "record or encode the video again in one size" })
}

fn error_of(store: &VideoStore, frame: &Wanted, FrameFailure { what, hint }: FrameFailure) -> DataError {
    DataError::Frame {
        path: store.table.path(frame.file).to_owned(),
        episode: store.table.episode(frame.row),
        wanted_s: frame.time_s,
        what,
        hint: hint.into(),
    }
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq)]
pub struct RawFrame {
    /// The video file.
    pub file: PathBuf,
    /// Index of the frame in the file, in the order of presentation.
    pub index: usize,
    /// Time of the frame in the file, seconds.
    pub time_s: f64,
    /// FFmpeg's name of the pixel format, such as `yuv420p`.
    pub pixel_format: String,
    /// All planes one after the other, rows without padding.
    pub planes: Vec<u8>,
}

impl VideoStore {
    /// Decodes the frame of a row without converting it.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn raw_frame(&self, row: u64) -> Result<RawFrame, DataError> {
        let (file, time_s) = self.table.locate(row)?;
        let video = self.video(file)?;
        let packet = video.index().nearest(time_s);
        let (index, time_s) = (video.index().shown_index(packet), video.index().time(packet));
        let (mut planes, mut pixel_format) = (Vec::new(), String::new());
        let decoded = VideoDecoder::open(video)?.decode(&[packet], |_, frame| {
            let format = frame.format().descriptor();
            pixel_format = format.map_or_else(String::new, |format| format.name().to_owned());
            for plane in 0..frame.planes() {
                let width = frame.plane_width(plane) as usize;
                let rows = frame.data(plane).chunks(frame.stride(plane)).take(frame.plane_height(plane) as usize);
                rows.for_each(|row| planes.extend_from_slice(&row[..width]));
            }
            Ok(())
        });
        let path = self.table.path(file).to_owned();
        decoded.map_err(|(_, failure)| DataError::file(&path, failure.what, failure.hint))?;
        Ok(RawFrame { file: path, index, time_s, pixel_format, planes })
    }
}
