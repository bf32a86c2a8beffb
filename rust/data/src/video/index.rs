//! The packet table of an MP4 file: where each coded frame is and when it is shown.
//!
//! It comes from the container's header alone, so that a frame is found by one look-up and read by one `pread`.

use super::container::{Edit, Presentation, damaged};
use crate::error::DataError;
use crate::read_at::ReadAt;
use mp4parse::{TrackType, unstable::create_sample_table};
use std::{io::Cursor, path::Path};

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
    /// Positions in `packets` of the frames that are shown, by presentation time; none where that is all of them in the order of
    /// decoding.
    by_pts: Option<Vec<u32>>,
    /// Ticks per second.
    timescale: f64,
}

impl PacketIndex {
    /// Reads the list of the frames of track `track_id` in `header`, the header of the MP4 file at `path`.
    ///
    /// # Errors
    /// When the file is cut off, or has no such list.
    pub(crate) fn read(
        path: &Path,
        bytes: &dyn ReadAt,
        header: &[u8],
        track_id: u32,
        presentation: &Presentation,
    ) -> Result<Self, DataError> {
        let broken = |what: String| damaged(path, what);
        let context = mp4parse::read_mp4(&mut Cursor::new(header))
            .map_err(|error| broken(format!("is not a readable MP4 file ({error:?})")))?;
        let mut videos = context.tracks.iter().filter(|track| track.track_type == TrackType::Video);
        let track = videos.find(|track| track.track_id == Some(track_id));
        let track = track.ok_or_else(|| broken("has no readable video track".into()))?;
        let timescale = track.timescale.filter(|scale| scale.0 > 0);
        let timescale = timescale.ok_or_else(|| broken("does not say its time unit".into()))?.0 as f64;
        let samples = create_sample_table(track, 0.into()).filter(|samples| !samples.is_empty());
        let samples = samples.ok_or_else(|| broken("has no usable list of its frames".into()))?;
        let mut packets: Vec<Packet> = samples
            .iter()
            .map(|sample| Packet {
                offset: sample.start_offset.0,
                pts: sample.start_composition.0,
                size: u32::try_from(sample.end_offset.0.saturating_sub(sample.start_offset.0)).unwrap_or(u32::MAX),
                is_key: sample.sync,
            })
            .collect();
        let len = bytes.num_bytes().map_err(DataError::io(path))?;
        if let Some(lost) = packets.iter().position(|packet| packet.offset + u64::from(packet.size) > len) {
            return Err(broken(format!("is cut off: it ends before frame {lost} of {}", packets.len())));
        }
        let is_shown = presentation.edit.map(|edit| {
            let ticks = |movie_ticks: u64| (movie_ticks as f64 / presentation.movie_scale * timescale).round() as i64;
            apply(&edit, &mut packets, ticks)
        });
        let is_whole = is_shown.as_ref().is_none_or(|is_shown| is_shown.iter().all(|&shown| shown));
        let by_pts = (!is_whole || !packets.is_sorted_by_key(|packet| packet.pts)).then(|| {
            let is_shown = |at: &u32| is_shown.as_ref().is_none_or(|is_shown| is_shown[*at as usize]);
            let mut order: Vec<u32> = (0..packets.len() as u32).filter(is_shown).collect();
            order.sort_by_key(|&at| packets[at as usize].pts);
            order
        });
        if by_pts.as_ref().is_some_and(Vec::is_empty) {
            return Err(broken("has an edit list that shows no frame".into()));
        }
        Ok(Self { packets, by_pts, timescale })
    }

    /// Whether frames are decoded in the order in which they are shown, and all of them are shown.
    pub(crate) fn is_in_order(&self) -> bool {
        self.by_pts.is_none()
    }

    /// Number of frames that are shown.
    pub(crate) fn num_shown(&self) -> usize {
        self.by_pts.as_ref().map_or(self.packets.len(), Vec::len)
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

    /// Position of the packet of the `nth` frame that is shown.
    fn shown(&self, nth: usize) -> usize {
        self.by_pts.as_ref().map_or(nth, |order| order[nth] as usize)
    }

    /// Times at which the first and the last frame are shown, seconds.
    pub(crate) fn shown_span(&self) -> (f64, f64) {
        (self.time(self.shown(0)), self.time(self.shown(self.num_shown() - 1)))
    }

    /// Position of the packet whose frame is shown nearest to `time_s`.
    pub(crate) fn nearest(&self, time_s: f64) -> usize {
        let ticks = time_s * self.timescale;
        let (mut low, mut high) = (0, self.num_shown());
        while low < high {
            let middle = (low + high) / 2;
            if (self.packets[self.shown(middle)].pts as f64) < ticks { low = middle + 1 } else { high = middle }
        }
        let distance = |nth: usize| (self.packets[self.shown(nth)].pts as f64 - ticks).abs();
        let after = low.min(self.num_shown() - 1);
        let before = after.saturating_sub(1);
        self.shown(if distance(before) < distance(after) { before } else { after })
    }

    /// Where decoding must start for the frame of `packet`: the last keyframe for which `is_entry` holds that is neither decoded nor
    /// shown after it. (A frame that follows a keyframe in the file but is shown before it may need the group before.)
    pub(crate) fn key_before(&self, packet: usize, is_entry: impl Fn(usize) -> bool) -> usize {
        let pts = self.packets[packet].pts;
        let is_start = |&at: &usize| self.packets[at].is_key && self.packets[at].pts <= pts && is_entry(at);
        (0..=packet).rev().find(is_start).unwrap_or(0)
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

/// Moves the times of `packets` to where an edit list shows them, as FFmpeg's demuxer does; `ticks` converts the movie's to the
/// track's. Returns which of them are shown.
fn apply(edit: &Edit, packets: &mut [Packet], ticks: impl Fn(u64) -> i64) -> Vec<bool> {
    let end = if edit.duration == 0 { i64::MAX } else { edit.start.saturating_add(ticks(edit.duration)) };
    let is_shown: Vec<bool> = packets.iter().map(|packet| (edit.start..end).contains(&packet.pts)).collect();
    // Where no frame begins exactly at the edit's start, FFmpeg shows the first one at zero.
    let shown = packets.iter().zip(&is_shown).filter(|(_, shown)| **shown);
    let first = shown.map(|(packet, _)| packet.pts).min().unwrap_or(edit.start);
    let shift = ticks(edit.delay) - first;
    packets.iter_mut().for_each(|packet| packet.pts += shift);
    is_shown
}
