//! The packet table of an MP4 file: where each coded frame is and when it is shown.
//!
//! It comes from the container's header alone, so that a frame is found by one look-up and read by one `pread`.

use crate::error::DataError;
use mp4parse::{Track, TrackType, unstable::create_sample_table};
use std::{fs::File, io::Cursor, os::unix::fs::FileExt, path::Path};

/// A coded frame: where it is and when it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    /// First byte in the file.
    pub(crate) offset: u64,
    /// Presentation time in ticks.
    pub(crate) pts: i64,
    /// Number of bytes.
    pub(crate) size: u32,
    /// Whether decoding can start here.
    pub(crate) is_key: bool,
}

/// All coded frames of a video file.
#[derive(Debug)]
pub(crate) struct PacketIndex {
    /// In the order of decoding, which is their order in the file.
    packets: Vec<Packet>,
    /// Positions in `packets` by presentation time; none where that is the order of decoding.
    by_pts: Option<Vec<u32>>,
    /// Ticks per second.
    timescale: f64,
}

impl PacketIndex {
    /// Reads the header of the MP4 file at `path`.
    ///
    /// # Errors
    /// When the file is cut off, is no MP4 file, or has no video.
    pub(crate) fn read(path: &Path, file: &File) -> Result<Self, DataError> {
        let broken = |what: String| DataError::file(path, what, "the video is damaged: fetch or record it again");
        let header = read_header(path, file)?;
        let context = mp4parse::read_mp4(&mut Cursor::new(header))
            .map_err(|error| broken(format!("is not a readable MP4 file ({error:?})")))?;
        let track = context.tracks.iter().find(|track| track.track_type == TrackType::Video);
        let track = track.ok_or_else(|| broken("has no video".into()))?;
        let timescale = track.timescale.filter(|scale| scale.0 > 0);
        let timescale = timescale.ok_or_else(|| broken("does not say its time unit".into()))?.0 as f64;
        let shift = edit_shift(track, &context, timescale);
        let samples = create_sample_table(track, shift.into()).filter(|samples| !samples.is_empty());
        let samples = samples.ok_or_else(|| broken("has no usable list of its frames".into()))?;
        let packets: Vec<Packet> = samples
            .iter()
            .map(|sample| Packet {
                offset: sample.start_offset.0,
                pts: sample.start_composition.0,
                size: u32::try_from(sample.end_offset.0.saturating_sub(sample.start_offset.0)).unwrap_or(u32::MAX),
                is_key: sample.sync,
            })
            .collect();
        let len = file.metadata().map_err(DataError::io(path))?.len();
        if let Some(lost) = packets.iter().position(|packet| packet.offset + u64::from(packet.size) > len) {
            return Err(broken(format!("is cut off: it ends before frame {lost} of {}", packets.len())));
        }
        let by_pts = (!packets.is_sorted_by_key(|packet| packet.pts)).then(|| {
            let mut order: Vec<u32> = (0..packets.len() as u32).collect();
            order.sort_by_key(|&at| packets[at as usize].pts);
            order
        });
        Ok(Self { packets, by_pts, timescale })
    }

    /// The packets in the order of decoding.
    pub(crate) fn packets(&self) -> &[Packet] {
        &self.packets
    }

    /// Time of a packet's frame, seconds.
    pub(crate) fn time(&self, packet: usize) -> f64 {
        self.packets[packet].pts as f64 / self.timescale
    }

    /// Index of a packet's frame in the order of presentation.
    pub(crate) fn shown_index(&self, packet: usize) -> usize {
        let nth = |order: &Vec<u32>| order.iter().position(|&at| at as usize == packet);
        self.by_pts.as_ref().and_then(nth).unwrap_or(packet)
    }

    /// Time at which the last frame is shown, seconds.
    pub(crate) fn last_time(&self) -> f64 {
        let last = self
            .by_pts
            .as_ref()
            .and_then(|order| order.last().copied())
            .map_or(self.packets.len() - 1, |at| at as usize);
        self.time(last)
    }

    /// Position of the packet whose frame is shown nearest to `time_s`.
    pub(crate) fn nearest(&self, time_s: f64) -> usize {
        let ticks = time_s * self.timescale;
        let shown = |nth: usize| self.by_pts.as_ref().map_or(nth, |order| order[nth] as usize);
        let (mut low, mut high) = (0, self.packets.len());
        while low < high {
            let middle = (low + high) / 2;
            if (self.packets[shown(middle)].pts as f64) < ticks { low = middle + 1 } else { high = middle }
        }
        let distance = |nth: usize| (self.packets[shown(nth)].pts as f64 - ticks).abs();
        let after = low.min(self.packets.len() - 1);
        let before = after.saturating_sub(1);
        shown(if distance(before) < distance(after) { before } else { after })
    }

    /// Where decoding must start for the frame of `packet`: the last keyframe that is neither decoded nor shown
    /// after it. (A frame that follows a keyframe in the file but is shown before it may need the group before.)
    pub(crate) fn key_before(&self, packet: usize) -> usize {
        let pts = self.packets[packet].pts;
        (0..=packet).rev().find(|&at| self.packets[at].is_key && self.packets[at].pts <= pts).unwrap_or(0)
    }

    /// Number of frames from one keyframe to the next, the largest of the first few groups.
    pub(crate) fn group_size(&self) -> usize {
        let keys: Vec<usize> =
            self.packets.iter().enumerate().filter(|(_, p)| p.is_key).map(|(at, _)| at).take(9).collect();
        keys.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(self.packets.len())
    }

    /// Bytes of memory that the table takes.
    pub(crate) fn memory_size(&self) -> usize {
        size_of_val(self.packets.as_slice()) + self.by_pts.as_ref().map_or(0, |order| 4 * order.len())
    }
}

/// What the edit list adds to every time: minus the media time at which presentation starts.
fn edit_shift(track: &Track, context: &mp4parse::MediaContext, timescale: f64) -> i64 {
    let start = track.media_time.map_or(0, |time| i64::try_from(time.0).unwrap_or(0));
    let movie_scale = context.timescale.map_or(1.0, |scale| scale.0 as f64);
    let empty = track.empty_duration.map_or(0.0, |time| time.0 as f64 / movie_scale * timescale);
    empty.round() as i64 - start
}

/// The boxes `ftyp` and `moov` of an MP4 file; the frames between them are skipped.
fn read_header(path: &Path, file: &File) -> Result<Vec<u8>, DataError> {
    let io = |error| DataError::io(path)(error);
    let broken = |what: &str| DataError::file(path, what, "the video is damaged: fetch or record it again");
    let len = file.metadata().map_err(io)?.len();
    let mut header = Vec::new();
    let (mut at, mut has_movie) = (0, false);
    while at + 8 <= len {
        let mut head = [0; 16];
        let known = (len - at).min(16) as usize;
        file.read_exact_at(&mut head[..known], at).map_err(io)?;
        let short = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let size = match short {
            0 => len - at,
            1 if known == 16 => {
                u64::from_be_bytes([head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15]])
            }
            size => u64::from(size),
        };
        if size < 8 {
            return Err(broken("is not an MP4 file"));
        }
        if size > len - at {
            return Err(broken("is cut off, or is not an MP4 file: a part of it is longer than the file"));
        }
        if matches!(&head[4..8], b"ftyp" | b"moov") {
            has_movie |= &head[4..8] == b"moov";
            let start = header.len();
            header.resize(start + size as usize, 0);
            file.read_exact_at(&mut header[start..], at).map_err(io)?;
        }
        at += size;
    }
    if has_movie { Ok(header) } else { Err(broken("is cut off, or is not an MP4 file: it has no `moov` part")) }
}
