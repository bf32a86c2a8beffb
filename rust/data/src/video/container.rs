//! What the header of an MP4 file says beyond the list of its frames: how a track is turned for showing, and which part of it
//! is shown when. LeRobot reads both (torchcodec turns frames, FFmpeg's demuxer applies edit lists); what is not applied here in
//! the same way is refused by name.

use crate::error::DataError;
use crate::frames::FrameSize;
use crate::read_at::ReadAt;
use std::path::Path;

/// The hint for a video that is intact, but in a container that is not read.
pub(super) const REWRAP: &str =
    "rewrite it without encoding it again: ffmpeg -i OLD.mp4 -map 0:v:0 -c copy -movflags +faststart NEW.mp4";

/// The hint for a video whose container changes what is shown.
const ENCODE_AGAIN: &str = "encode what it shows again: ffmpeg -i OLD.mp4 -map 0:v:0 -c:v libx264 -crf 18 NEW.mp4";

/// The hint for a damaged video.
pub(super) const DAMAGED: &str = "the video is damaged: fetch or record it again";

/// How decoded frames are turned for showing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    None,
    Clockwise,
    Half,
    Counterclockwise,
}

impl Turn {
    /// Size of frames of `size` after the turn.
    pub(crate) fn apply(self, size: FrameSize) -> FrameSize {
        match self {
            Self::None | Self::Half => size,
            Self::Clockwise | Self::Counterclockwise => FrameSize { height: size.width, width: size.height },
        }
    }
}

/// The part of a track that is shown, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Ticks of the movie before the first frame.
    pub(crate) delay: u64,
    /// Time of the track at which showing begins, ticks of the track.
    pub(crate) start: i64,
    /// How long the track is shown, ticks of the movie; 0 to its end.
    pub(crate) duration: u64,
}

/// What a track's header says about showing its frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Presentation {
    pub(crate) turn: Turn,
    /// None where the track has no edit list.
    pub(crate) edit: Option<Edit>,
    /// Ticks of the movie per second.
    pub(crate) movie_scale: f64,
}

impl Presentation {
    /// Reads the boxes of track `track_id` in `header`, the bytes of `moov`.
    ///
    /// # Errors
    /// The header shows the track in a way that is not applied here.
    pub(crate) fn read(path: &Path, header: &[u8], track_id: u32) -> Result<Self, DataError> {
        let refuse = |what: String, hint: &str| DataError::file(path, what, hint);
        let movie = child(header, b"moov").unwrap_or_default();
        if child(movie, b"mvex").is_some() {
            return Err(refuse("is a fragmented MP4 file, which has no list of all its frames".into(), REWRAP));
        }
        let mut tracks = children(movie).filter(|(kind, _)| kind == b"trak").map(|(_, track)| track);
        let track =
            tracks.find(|track| child(track, b"tkhd").and_then(track_id_of) == Some(track_id)).unwrap_or_default();
        let of_movie = child(movie, b"mvhd").and_then(|body| matrix(body, true));
        let of_track = child(track, b"tkhd").and_then(|body| matrix(body, false));
        let turn = turn(of_track, of_movie).map_err(|what| refuse(what, ENCODE_AGAIN))?;
        let edits = child(track, b"edts").and_then(|edits| child(edits, b"elst"));
        let edit = edits.map(edit).transpose().map_err(|what| refuse(what.into(), ENCODE_AGAIN))?.flatten();
        let movie_scale = child(movie, b"mvhd").and_then(|body| u32_at(body, if body[0] == 1 { 20 } else { 12 }));
        Ok(Self { turn, edit, movie_scale: f64::from(movie_scale.unwrap_or(1).max(1)) })
    }
}

/// The four numbers of a transformation that turn and mirror: a, b, c, d.
type Matrix = [f64; 4];

/// The matrix of a header box of the movie or of a track.
fn matrix(body: &[u8], is_movie: bool) -> Option<Matrix> {
    let is_long = *body.first()? == 1;
    let at = match (is_movie, is_long) {
        (true, false) => 36,
        (true, true) => 48,
        (false, false) => 40,
        (false, true) => 52,
    };
    let number = |nth: usize| Some(f64::from(u32_at(body, at + 4 * nth)? as i32));
    Some([number(0)?, number(1)?, number(3)?, number(4)?])
}

/// The turn of a track within its movie, as FFmpeg's `av_display_rotation_get` and torchcodec derive it.
fn turn(track: Option<Matrix>, movie: Option<Matrix>) -> Result<Turn, String> {
    let Some([a, b, c, d]) = track else { return Ok(Turn::None) };
    let [e, f, g, h] = movie.unwrap_or([1.0, 0.0, 0.0, 1.0]);
    let [a, b, c, d] = [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h];
    let size = a * d - b * c;
    if size == 0.0 {
        return Ok(Turn::None);
    }
    if size < 0.0 {
        return Err("its header mirrors the frames, which LeRobot does not apply".into());
    }
    let degrees = (b / b.hypot(d)).atan2(a / a.hypot(c)).to_degrees();
    let quarters = (degrees / 90.0).round();
    if (degrees - 90.0 * quarters).abs() > 0.5 {
        return Err(format!("its header turns the frames by {degrees:.1} degrees, not by a multiple of 90"));
    }
    Ok(match quarters as i32 {
        0 => Turn::None,
        1 => Turn::Clockwise,
        -1 => Turn::Counterclockwise,
        _ => Turn::Half,
    })
}

/// The part of the track that an edit list shows; none where the list is empty.
fn edit(body: &[u8]) -> Result<Option<Edit>, &'static str> {
    const CUT_OFF: &str = "its edit list is cut off";
    let is_long = *body.first().ok_or(CUT_OFF)? == 1;
    let count = u32_at(body, 4).ok_or(CUT_OFF)?;
    let (mut delay, mut shown, mut at) = (0, None, 8);
    for _ in 0..count {
        let (duration, start) = if is_long {
            (u64_at(body, at), u64_at(body, at + 8).map(|start| start as i64))
        } else {
            (u32_at(body, at).map(u64::from), u32_at(body, at + 4).map(|start| i64::from(start as i32)))
        };
        let (duration, start) = (duration.ok_or(CUT_OFF)?, start.ok_or(CUT_OFF)?);
        at += if is_long { 16 } else { 8 };
        let rate = u32_at(body, at).ok_or(CUT_OFF)?;
        at += 4;
        match (start, shown) {
            (-1, None) => delay += duration,
            (0.., None) if rate == 1 << 16 => shown = Some(Edit { delay, start, duration }),
            (0.., None) => return Err("its edit list changes the speed"),
            (-1, Some(_)) => return Err("its edit list has a pause after the frames"),
            _ => return Err("its edit list shows several parts of the video"),
        }
    }
    match shown {
        None if count > 0 => Err("its edit list shows no frame"),
        shown => Ok(shown),
    }
}

/// The id of a track, from its header box.
fn track_id_of(body: &[u8]) -> Option<u32> {
    u32_at(body, if *body.first()? == 1 { 20 } else { 12 })
}

/// The content of the first box of a kind.
fn child<'a>(boxes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(boxes).find(|(found, _)| found == kind).map(|(_, body)| body)
}

/// The boxes in `boxes`: kind and content. Ends where the bytes are no box.
fn children(boxes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = boxes;
    std::iter::from_fn(move || {
        let kind = <[u8; 4]>::try_from(rest.get(4..8)?).ok()?;
        let (head, size) = match u32_at(rest, 0)? {
            0 => (8, rest.len()),
            1 => (16, usize::try_from(u64_at(rest, 8)?).ok()?),
            size => (8, size as usize),
        };
        let body = rest.get(head..size)?;
        rest = &rest[size..];
        Some((kind, body))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// What an MP4 file says about its frames.
pub(crate) struct Header {
    /// The boxes `ftyp` and `moov`.
    pub(super) boxes: Vec<u8>,
    /// Every part of the file that was read, with its position: these boxes, and the beginnings of all others.
    pub(super) parts: Vec<(u64, Vec<u8>)>,
}

/// Reads the header of an MP4 file; the frames are skipped.
///
/// # Errors
/// The file cannot be read, is cut off, or is not an MP4 file.
pub(crate) fn read_header(path: &Path, bytes: &dyn ReadAt) -> Result<Header, DataError> {
    let io = |error| DataError::io(path)(error);
    let len = bytes.num_bytes().map_err(io)?;
    let mut header = Header { boxes: Vec::new(), parts: Vec::new() };
    let (mut at, mut has_movie) = (0, false);
    while at + 8 <= len {
        let mut head = [0; 16];
        let known = (len - at).min(16) as usize;
        bytes.read_exact_at(&mut head[..known], at).map_err(io)?;
        if at == 0 && !matches!(&head[4..8], b"ftyp" | b"moov" | b"mdat" | b"free" | b"skip" | b"wide" | b"pnot") {
            return Err(other_container(path, bytes));
        }
        let short = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let size = match short {
            0 => len - at,
            1 if known == 16 => u64_at(&head, 8).unwrap_or(0),
            size => u64::from(size),
        };
        if size < 8 || size > len - at {
            return Err(damaged(path, "is cut off: a part of it is longer than the file".into()));
        }
        let mut part = head[..known].to_vec();
        if matches!(&head[4..8], b"ftyp" | b"moov") {
            has_movie |= &head[4..8] == b"moov";
            part.resize(size as usize, 0);
            bytes.read_exact_at(&mut part, at).map_err(io)?;
            header.boxes.extend_from_slice(&part);
        }
        // Of a file of this machine FFmpeg reads the file itself.
        if bytes.is_remote() {
            header.parts.push((at, part));
        }
        at += size;
    }
    if has_movie { Ok(header) } else { Err(damaged(path, "is cut off: it has no `moov` part".into())) }
}

/// The error of a damaged file.
pub(super) fn damaged(path: &Path, what: String) -> DataError {
    DataError::file(path, what, DAMAGED)
}

/// The error of a file that does not begin as an MP4 file.
fn other_container(path: &Path, bytes: &dyn ReadAt) -> DataError {
    if bytes.is_remote() {
        return DataError::file(path, "is not an MP4 file", "download it instead: data.sources.<name>.streaming=false");
    }
    match ffmpeg_next::format::input(path) {
        Ok(input) => {
            let what = format!("is a file of the format {}, not an MP4 file", input.format().name());
            DataError::file(path, what, REWRAP)
        }
        Err(_) => damaged(path, "is neither an MP4 file nor any other format that FFmpeg knows".into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may panic
mod tests {
    use super::{Edit, Turn, edit, turn};

    const IDENTITY: [f64; 4] = [1.0, 0.0, 0.0, 1.0];

    #[test]
    fn a_movie_and_its_track_turn_together() {
        let quarter = [0.0, 1.0, -1.0, 0.0];
        assert_eq!(turn(Some(quarter), Some(IDENTITY)), Ok(Turn::Clockwise));
        assert_eq!(turn(Some(quarter), Some(quarter)), Ok(Turn::Half));
        assert_eq!(turn(Some([0.0, -2.0, 2.0, 0.0]), None), Ok(Turn::Counterclockwise));
        assert_eq!(turn(Some([0.0; 4]), None), Ok(Turn::None));
    }

    #[test]
    fn mirrored_and_slanted_frames_are_refused() {
        assert!(turn(Some([-1.0, 0.0, 0.0, 1.0]), None).unwrap_err().contains("mirrors"));
        assert!(turn(Some([0.7, 0.7, -0.7, 0.7]), None).unwrap_err().contains("45.0 degrees"));
    }

    fn list(edits: &[(u32, i32)]) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend((edits.len() as u32).to_be_bytes());
        for (duration, start) in edits {
            body.extend(duration.to_be_bytes().into_iter().chain(start.to_be_bytes()).chain([0, 1, 0, 0]));
        }
        body
    }

    #[test]
    fn an_edit_list_shows_one_part_after_a_pause() {
        assert_eq!(edit(&list(&[(40, -1), (100, 7)])), Ok(Some(Edit { delay: 40, start: 7, duration: 100 })));
        assert_eq!(edit(&list(&[])), Ok(None));
        assert!(edit(&list(&[(40, 0), (100, 70)])).unwrap_err().contains("several parts"));
        assert!(edit(&list(&[(40, -1)])).unwrap_err().contains("no frame"));
    }
}
