//! One open video file: what all threads share, and one thread's decoder.

use super::container::{DAMAGED, Presentation, Turn, damaged, read_header};
use super::index::PacketIndex;
use super::opening::Opening;
use crate::error::{DataError, FrameFailure};
use crate::read_at::ReadAt;
use crate::{frames::FrameSize, lock::lock};
use ffmpeg::{Discard, Packet, codec, format, frame, media, picture};
use ffmpeg_next as ffmpeg;
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicBool, Ordering},
    },
};

/// What threads share of a video file: its packet table and what opening a decoder needs.
pub(crate) struct VideoFile {
    path: PathBuf,
    bytes: Box<dyn ReadAt>,
    index: PacketIndex,
    turn: Turn,
    parameters: Mutex<codec::Parameters>,
    /// Packets that the container calls keyframes although decoding cannot start there.
    not_entries: Mutex<BTreeSet<usize>>,
    /// Whether [`VideoFile::warn_of_slow_entries`] has warned.
    slow_warning: Once,
    /// Whether the decoder returns a frame only after further packets: FFmpeg 5's H.264 decoder withholds frames at the end of its
    /// input where decoding began at a recovery point.
    needs_more_packets: AtomicBool,
}

/// Packets that are sent after the last wanted one where the decoder needs more: no decoder reorders as many.
const MAX_MORE_PACKETS: usize = 32;

/// Most bytes that are asked for ahead.
const MAX_PREPARED: u64 = 8 << 20;

/// The hint for a remote file that cannot be read.
const UNREACHABLE: &str = "check the network and HF_ENDPOINT, then resume; or download the dataset and set data.sources.<name>.streaming=false";

/// The failure of a frame in a damaged file.
fn damage(what: impl Into<String>) -> FrameFailure {
    FrameFailure { what: what.into(), hint: DAMAGED }
}

impl VideoFile {
    /// Opens a video file, whose content is `bytes`.
    ///
    /// # Errors
    /// When the file is cut off, or not a video.
    pub(crate) fn open(path: &Path, bytes: Box<dyn ReadAt>) -> Result<Self, DataError> {
        static START: Once = Once::new();
        // Every failure is reported by its return value; FFmpeg need not print it as well.
        START.call_once(|| ffmpeg::log::set_level(ffmpeg::log::Level::Quiet));
        let header = read_header(path, &*bytes)?;
        let opening = bytes.is_remote().then(|| Opening::of(&*bytes, &header)).transpose();
        let opening = opening.map_err(DataError::io(path))?;
        let seen = opening.as_ref().map_or_else(|| path.to_owned(), Opening::path);
        let open = || format::input(&seen).map_err(|error| damaged(path, format!("FFmpeg cannot open it ({error})")));
        let no_video = || DataError::file(path, "has no video", "it is not what the camera recorded: fetch it again");
        let mut input = open()?;
        // The track that FFmpeg, and so LeRobot, plays where there are several.
        let track_id = input.streams().best(media::Type::Video).ok_or_else(no_video)?.id() as u32;
        let presentation = Presentation::read(path, &header.boxes, track_id)?;
        let index = PacketIndex::read(path, &*bytes, &header.boxes, track_id, &presentation)?;
        if let Some(opening) = &opening {
            opening.add_frames(&*bytes, &index).map_err(DataError::io(path))?;
            input = open()?;
        }
        let stream = input.streams().best(media::Type::Video).ok_or_else(no_video)?;
        let parameters = Mutex::new(codec::Parameters::clone(&stream.parameters()));
        Ok(Self {
            path: path.to_owned(),
            bytes,
            index,
            turn: presentation.turn,
            parameters,
            not_entries: Mutex::new(BTreeSet::new()),
            slow_warning: Once::new(),
            needs_more_packets: AtomicBool::new(false),
        })
    }

    /// Opens a video file of this machine.
    ///
    /// # Errors
    /// As [`VideoFile::open`]; the file is missing.
    pub(crate) fn open_local(path: &Path) -> Result<Self, DataError> {
        Self::open(path, Box::new(File::open(path).map_err(DataError::io(path))?))
    }

    /// Where its frames are.
    pub(crate) fn index(&self) -> &PacketIndex {
        &self.index
    }

    /// How its frames are turned for showing.
    pub(crate) fn turn(&self) -> Turn {
        self.turn
    }

    /// The keyframe from which the frame of `packet` is decoded.
    fn entry_before(&self, packet: usize) -> usize {
        self.index.key_before(packet, |at| !lock(&self.not_entries).contains(&at))
    }

    /// Notes that decoding cannot start at a packet.
    fn exclude_entry(&self, packet: usize) {
        lock(&self.not_entries).insert(packet);
    }

    /// Undoes [`VideoFile::exclude_entry`].
    fn readmit_entry(&self, packet: usize) {
        lock(&self.not_entries).remove(&packet);
    }

    /// Warns once that reading this video at random is slow.
    fn warn_of_slow_entries(&self) {
        self.slow_warning.call_once(|| {
            tracing::warn!(
                "{}: keyframes are not complete images (gradual intra refresh); a random frame is decoded from the last complete \
                 one, which is slow: encode the video again with keyframes to read it fast",
                self.path.display()
            );
        });
    }

    /// Codec of the video.
    pub(crate) fn codec_id(&self) -> codec::Id {
        lock(&self.parameters).id()
    }

    /// The failure of a frame whose packet cannot be read.
    fn unread(&self, error: &std::io::Error) -> FrameFailure {
        let hint = if self.bytes.is_remote() { UNREACHABLE } else { DAMAGED };
        FrameFailure { what: error.to_string(), hint }
    }

    /// Says that the packets from `first` to `last` will be read. A failure shows again when they are.
    fn prepare(&self, first: usize, last: usize) {
        let packets = &self.index.packets()[first..=last];
        let start = packets.iter().map(|packet| packet.offset).min().unwrap_or(0);
        let end = packets.iter().map(|packet| packet.offset + u64::from(packet.size)).max().unwrap_or(0);
        // What interrupts the frames, such as another track, is not worth a request.
        if self.bytes.is_remote() && end - start <= MAX_PREPARED {
            let _ = self.bytes.prepare(start..end);
        }
    }

    fn read_packet(&self, at: usize) -> std::io::Result<Packet> {
        let entry = self.index.packets()[at];
        let mut packet = Packet::new(entry.size as usize);
        if let Some(data) = packet.data_mut() {
            self.bytes.read_exact_at(data, entry.offset)?;
        }
        // A frame is known by the position of its packet: times may repeat where an edit list moves them.
        packet.set_pts(Some(at as i64));
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
    /// See [`VideoDecoder::shown_size`].
    shown_size: FrameSize,
    /// The next packet to decode; none when the decoder must start again.
    next: Option<usize>,
    /// The keyframe at which it started.
    started: usize,
    /// Whether the frame at which it started is known to be a complete image.
    is_started: bool,
    /// Whether a frame since the last complete image was damaged, so that those after it may be, too.
    is_damaged: bool,
}

/// Why decoding stopped.
enum Stop {
    /// It cannot start at the keyframe that it started at; the position of the frame that was wanted.
    NoEntry(usize),
    /// The decoder does not return the frame at this position.
    NoFrame(usize),
    /// A frame cannot be decoded: its position, and why.
    Failed(usize, FrameFailure),
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
        // Threads decode samples in parallel, not frames of one sample.
        context.set_threading(codec::threading::Config::count(1));
        if video.index.is_in_order() {
            // One frame in, one frame out. Elsewhere some decoders would return frames in the order of decoding.
            context.set_flags(codec::Flags::LOW_DELAY);
        }
        let decoder = context.decoder().open_as(codec).and_then(|opened| opened.video()).map_err(failed)?;
        let frame = frame::Video::empty();
        let coded = FrameSize { height: decoder.height() as usize, width: decoder.width() as usize };
        let shown_size = video.turn.apply(coded);
        Ok(Self { video, decoder, frame, shown_size, next: None, started: 0, is_started: false, is_damaged: false })
    }

    /// Size of its frames as they are shown, according to the header of the file.
    pub(crate) fn shown_size(&self) -> FrameSize {
        self.shown_size
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
        mut on_frame: impl FnMut(usize, &frame::Video) -> Result<(), FrameFailure>,
    ) -> Result<(), (usize, FrameFailure)> {
        let mut nth = 0;
        // The keyframe from which the decoder returned no frame, although decoding can start there.
        let mut given_up: Option<usize> = None;
        while nth < wanted.len() {
            // Frames that one run of the decoder yields: it is restarted where that skips packets.
            let run_end = self.run_end(wanted, nth);
            self.seek(wanted[nth]);
            let stop = match self.decode_run(wanted, nth..run_end, &mut on_frame) {
                Ok(()) => {
                    nth = run_end;
                    continue;
                }
                Err(stop) => stop,
            };
            // Frames of the failed run must not come out in the next one.
            self.restart();
            match stop {
                Stop::NoEntry(at) => {
                    self.video.exclude_entry(self.started);
                    self.video.warn_of_slow_entries();
                    nth = at;
                }
                Stop::NoFrame(at) if !self.video.needs_more_packets.swap(true, Ordering::AcqRel) => nth = at,
                // At the end of a file there are no more packets: decode from one keyframe earlier, where that helps.
                Stop::NoFrame(at) if self.started > 0 && given_up.is_none() => {
                    self.video.exclude_entry(self.started);
                    given_up = Some(self.started);
                    nth = at;
                }
                Stop::NoFrame(at) => {
                    given_up.iter().for_each(|key| self.video.readmit_entry(*key));
                    return Err((at, damage("the decoder returns no frame at this time")));
                }
                Stop::Failed(at, failure) => return Err((at, failure)),
            }
        }
        Ok(())
    }

    /// Where the run that starts with frame `first` ends: before the first frame whose keyframe is after it.
    fn run_end(&self, wanted: &[usize], first: usize) -> usize {
        let mut last_packet = wanted[first];
        let mut end = first + 1;
        while end < wanted.len() && self.video.entry_before(wanted[end]) <= last_packet + 1 {
            last_packet = last_packet.max(wanted[end]);
            end += 1;
        }
        end
    }

    /// Positions the decoder so that it decodes towards `packet`: from where it is, or from the keyframe before.
    fn seek(&mut self, packet: usize) {
        let key = self.video.entry_before(packet);
        let goes_on = self.next.is_some_and(|next| (key..=packet).contains(&next) && self.started <= key);
        if !goes_on {
            if self.next.is_some() {
                self.restart();
            }
            // The first packet is where every player starts, whatever it is.
            (self.next, self.started, self.is_started) = (Some(key), key, key == 0);
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
        on_frame: &mut impl FnMut(usize, &frame::Video) -> Result<(), FrameFailure>,
    ) -> Result<(), Stop> {
        let video = Arc::clone(&self.video);
        let mut last = wanted[run.clone()].iter().copied().max().unwrap_or(0);
        if video.needs_more_packets.load(Ordering::Acquire) {
            last = (last + MAX_MORE_PACKETS).min(video.index.packets().len() - 1);
        }
        if let Some(next) = self.next.filter(|next| *next <= last) {
            video.prepare(next, last);
        }
        let mut nth = run.start;
        let mut drained = false;
        while nth < run.end {
            let mut got_any = false;
            while nth < run.end && self.decoder.receive_frame(&mut self.frame).is_ok() {
                got_any = true;
                self.check_entry(wanted[nth], nth)?;
                let is_damaged = self.frame.is_corrupt() || self.frame.has_decode_errors();
                let is_complete = self.frame.is_key() && !is_dependent(&self.frame);
                self.is_damaged = is_damaged || (self.is_damaged && !is_complete);
                if self.frame.pts() == Some(wanted[nth] as i64) {
                    if self.is_damaged {
                        let what = "the frame, or one that it depends on, is damaged";
                        return Err(Stop::Failed(nth, damage(what)));
                    }
                    on_frame(nth, &self.frame).map_err(|failure| Stop::Failed(nth, failure))?;
                    nth += 1;
                }
            }
            if nth == run.end {
                break;
            }
            match self.next {
                Some(next) if next <= last => {
                    let failed = |what: String| Stop::Failed(nth, damage(what));
                    let packet = video.read_packet(next).map_err(|error| Stop::Failed(nth, video.unread(&error)))?;
                    // Frames that are not wanted and that no other depends on need not be decoded.
                    let is_wanted = wanted[run.clone()].contains(&next);
                    self.decoder.skip_frame(if is_wanted { Discard::Default } else { Discard::NonReference });
                    if let Err(error) = self.decoder.send_packet(&packet) {
                        self.require_started(nth)?;
                        return Err(failed(format!("cannot be decoded ({error})")));
                    }
                    self.next = Some(next + 1);
                }
                // All packets are in; what the decoder still keeps for reordering is asked for.
                _ if !drained => {
                    self.decoder.send_eof().map_err(|error| Stop::Failed(nth, damage(error.to_string())))?;
                    drained = true;
                }
                _ if !got_any => {
                    self.require_started(nth)?;
                    return Err(Stop::NoFrame(nth));
                }
                _ => {}
            }
        }
        if drained {
            self.restart();
        }
        Ok(())
    }

    /// Checks with the frame that was just received whether decoding could start where it did: the frame of the packet at which it
    /// started must come before the `nth` wanted one and be a complete image.
    fn check_entry(&mut self, wanted: usize, nth: usize) -> Result<(), Stop> {
        if !self.is_started {
            let pts = self.frame.pts();
            self.is_started = pts == Some(self.started as i64) && !is_dependent(&self.frame);
            if !self.is_started && (pts == Some(self.started as i64) || pts == Some(wanted as i64)) {
                return Err(Stop::NoEntry(nth));
            }
        }
        Ok(())
    }

    /// Stops the decoding of the `nth` frame unless the frame at which decoding started has come.
    fn require_started(&self, nth: usize) -> Result<(), Stop> {
        if self.is_started { Ok(()) } else { Err(Stop::NoEntry(nth)) }
    }
}

/// Whether a frame says that it depends on others.
fn is_dependent(frame: &frame::Video) -> bool {
    matches!(frame.kind(), picture::Type::P | picture::Type::B | picture::Type::S | picture::Type::SP)
}
