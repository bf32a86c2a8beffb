//! One open video file: what all threads share, and one thread's decoder.

use super::index::PacketIndex;
use crate::{error::DataError, lock::lock};
use ffmpeg::{Discard, Packet, codec, format, frame, media};
use ffmpeg_next as ffmpeg;
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once},
};

/// What threads share of a video file: its packet table and what opening a decoder needs.
pub(crate) struct VideoFile {
    path: PathBuf,
    file: File,
    index: PacketIndex,
    parameters: Mutex<codec::Parameters>,
}

impl VideoFile {
    /// Opens a video file.
    ///
    /// # Errors
    /// When the file is missing, cut off, or not a video.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        static START: Once = Once::new();
        // Every failure is reported by its return value; FFmpeg need not print it as well.
        START.call_once(|| ffmpeg::log::set_level(ffmpeg::log::Level::Quiet));
        let file = File::open(path).map_err(DataError::io(path))?;
        let index = PacketIndex::read(path, &file)?;
        let broken = |what: String| DataError::file(path, what, "the video is damaged: fetch or record it again");
        let input = format::input(path).map_err(|error| broken(format!("FFmpeg cannot open it ({error})")))?;
        let stream = input.streams().best(media::Type::Video).ok_or_else(|| broken("has no video".into()))?;
        let parameters = Mutex::new(codec::Parameters::clone(&stream.parameters()));
        Ok(Self { path: path.to_owned(), file, index, parameters })
    }

    /// Where its frames are.
    pub(crate) fn index(&self) -> &PacketIndex {
        &self.index
    }

    /// Codec of the video.
    pub(crate) fn codec_id(&self) -> codec::Id {
        lock(&self.parameters).id()
    }

    fn read_packet(&self, at: usize) -> std::io::Result<Packet> {
        let entry = self.index.packets()[at];
        let mut packet = Packet::new(entry.size as usize);
        if let Some(data) = packet.data_mut() {
            self.file.read_exact_at(data, entry.offset)?;
        }
        packet.set_pts(Some(entry.pts));
        if entry.is_key {
            packet.set_flags(ffmpeg::packet::Flags::KEY);
        }
        Ok(packet)
    }
}

/// The decoder that is used for a codec: for AV1 dav1d where FFmpeg has it.
pub(crate) fn decoder_of(id: codec::Id) -> Option<ffmpeg::Codec> {
    let preferred = if id == codec::Id::AV1 { ffmpeg::decoder::find_by_name("libdav1d") } else { None };
    preferred.or_else(|| ffmpeg::decoder::find(id))
}

/// One thread's decoder of a video file. It stays where it is between calls, so that consecutive frames
/// are decoded once.
pub(crate) struct VideoDecoder {
    video: Arc<VideoFile>,
    decoder: ffmpeg::decoder::Video,
    frame: frame::Video,
    /// The next packet to decode; none when the decoder must start again.
    next: Option<usize>,
    /// The keyframe at which it started.
    started: usize,
    /// Whether a frame since the last keyframe was damaged, so that those after it may be, too.
    is_damaged: bool,
}

impl VideoDecoder {
    /// Opens a decoder.
    ///
    /// # Errors
    /// When FFmpeg has no decoder for the file's codec.
    pub(crate) fn open(video: Arc<VideoFile>) -> Result<Self, DataError> {
        let parameters = lock(&video.parameters).clone();
        let id = parameters.id();
        let no_decoder = |what: String| {
            DataError::file(
                &video.path,
                what,
                "install an FFmpeg with this decoder; `hlrp-data ffmpeg-info` lists what it has",
            )
        };
        let codec = decoder_of(id).ok_or_else(|| no_decoder(format!("FFmpeg has no decoder for {}", id.name())))?;
        let failed = |error| no_decoder(format!("the decoder {} does not start ({error})", codec.name()));
        let mut context = codec::Context::from_parameters(parameters).map_err(failed)?;
        // One frame in, one frame out: threads decode samples in parallel, not frames of one sample.
        context.set_threading(codec::threading::Config::count(1));
        context.set_flags(codec::Flags::LOW_DELAY);
        let decoder = context.decoder().open_as(codec).and_then(|opened| opened.video()).map_err(failed)?;
        Ok(Self { video, decoder, frame: frame::Video::empty(), next: None, started: 0, is_damaged: false })
    }

    /// The file that it decodes.
    pub(crate) fn video(&self) -> &VideoFile {
        &self.video
    }

    /// Decodes the frames of the packets `wanted`, which are sorted by presentation time, and passes each to `on_frame`
    /// with its position in `wanted`.
    ///
    /// # Errors
    /// The position of the frame that cannot be decoded, and why.
    pub(crate) fn decode(
        &mut self,
        wanted: &[usize],
        mut on_frame: impl FnMut(usize, &frame::Video) -> Result<(), String>,
    ) -> Result<(), (usize, String)> {
        let mut nth = 0;
        while nth < wanted.len() {
            // Frames that one run of the decoder yields: it is restarted where that skips packets.
            let run_end = self.run_end(wanted, nth);
            self.seek(wanted[nth]);
            if let Err(failure) = self.decode_run(wanted, nth..run_end, &mut on_frame) {
                // Frames of the failed run must not come out in the next one.
                self.decoder.flush();
                self.next = None;
                return Err(failure);
            }
            nth = run_end;
        }
        Ok(())
    }

    /// Where the run that starts with frame `first` ends: before the first frame whose keyframe is after it.
    fn run_end(&self, wanted: &[usize], first: usize) -> usize {
        let mut last_packet = wanted[first];
        let mut end = first + 1;
        while end < wanted.len() && self.video.index.key_before(wanted[end]) <= last_packet + 1 {
            last_packet = last_packet.max(wanted[end]);
            end += 1;
        }
        end
    }

    /// Positions the decoder so that it decodes towards `packet`: from where it is, or from the keyframe before.
    fn seek(&mut self, packet: usize) {
        let key = self.video.index.key_before(packet);
        let goes_on = self.next.is_some_and(|next| (key..=packet).contains(&next) && self.started <= key);
        if !goes_on {
            if self.next.is_some() {
                self.restart();
            }
            (self.next, self.started) = (Some(key), key);
        }
    }

    /// Forgets all frames.
    fn restart(&mut self) {
        self.decoder.flush();
        self.next = None;
        self.is_damaged = false;
    }

    fn decode_run(
        &mut self,
        wanted: &[usize],
        run: std::ops::Range<usize>,
        on_frame: &mut impl FnMut(usize, &frame::Video) -> Result<(), String>,
    ) -> Result<(), (usize, String)> {
        let video = Arc::clone(&self.video);
        let packets = video.index.packets();
        let last = wanted[run.clone()].iter().copied().max().unwrap_or(0);
        let mut nth = run.start;
        let mut drained = false;
        while nth < run.end {
            let mut got_any = false;
            while nth < run.end && self.decoder.receive_frame(&mut self.frame).is_ok() {
                got_any = true;
                let is_damaged = self.frame.is_corrupt() || self.frame.has_decode_errors();
                self.is_damaged = is_damaged || (self.is_damaged && !self.frame.is_key());
                if self.frame.pts() == Some(packets[wanted[nth]].pts) {
                    if self.is_damaged {
                        return Err((nth, "the frame, or one that it depends on, is damaged".into()));
                    }
                    on_frame(nth, &self.frame).map_err(|what| (nth, what))?;
                    nth += 1;
                }
            }
            if nth == run.end {
                break;
            }
            match self.next {
                Some(next) if next <= last => {
                    let packet = video.read_packet(next).map_err(|error| (nth, error.to_string()))?;
                    // Frames that are not wanted and that no other depends on need not be decoded.
                    let is_wanted = wanted[run.clone()].contains(&next);
                    self.decoder.skip_frame(if is_wanted { Discard::Default } else { Discard::NonReference });
                    self.decoder.send_packet(&packet).map_err(|error| (nth, format!("cannot be decoded ({error})")))?;
                    self.next = Some(next + 1);
                }
                // All packets are in; what the decoder still keeps for reordering is asked for.
                _ if !drained => {
                    self.decoder.send_eof().map_err(|error| (nth, error.to_string()))?;
                    drained = true;
                }
                _ if !got_any => return Err((nth, "the decoder returns no frame at this time".into())),
                _ => {}
            }
        }
        if drained {
            self.restart();
        }
        Ok(())
    }
}
