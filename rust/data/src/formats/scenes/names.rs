//! Names of files and folders in the order of their numbers, and the frames of a scene.

use crate::error::DataError;
use std::{
    cmp::Ordering,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// The order of two names: numbers count by their value, so that `im_2` is before `im_10`.
pub(super) fn natural(a: &OsStr, b: &OsStr) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(&first), Some(&second)) = (left.first(), right.first()) {
        let order = if first.is_ascii_digit() && second.is_ascii_digit() {
            let (number, other);
            (number, left) = split_number(left);
            (other, right) = split_number(right);
            number.len().cmp(&other.len()).then_with(|| number.cmp(other))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            first.cmp(&second)
        };
        if order.is_ne() {
            return order;
        }
    }
    // Names such as `im_1` and `im_01` differ in zeros alone.
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// The digits of the number at the beginning of a name, without leading zeros, and what follows it.
fn split_number(name: &[u8]) -> (&[u8], &[u8]) {
    let is_other = |byte: &u8| !byte.is_ascii_digit();
    let (number, rest) = name.split_at(name.iter().position(is_other).unwrap_or(name.len()));
    (&number[number.iter().take_while(|&&digit| digit == b'0').count()..], rest)
}

/// Entries of a folder that are not hidden, in their order.
pub(super) fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, DataError> {
    let mut entries =
        fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(DataError::io(folder))?;
    entries.retain(|entry| !entry.file_name().as_bytes().starts_with(b"."));
    entries.sort_by(|a, b| natural(&a.file_name(), &b.file_name()));
    Ok(entries)
}

/// Refuses a folder that is not below `root`, a canonical path, once links are followed.
pub(super) fn check_inside(root: &Path, folder: &Path) -> Result<(), DataError> {
    let target = folder.canonicalize().map_err(DataError::io(folder))?;
    if target.starts_with(root) {
        return Ok(());
    }
    let what = "is a link that leads out of the dataset's folder";
    Err(DataError::file(folder, what, "copy what it leads to into the dataset, or give that folder as the root"))
}

/// Names of the frames in a folder, in their order: the JPEG files, or the PNG files where there is no other, that begin with `prefix`.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn frames_in(folder: &Path, prefix: &str) -> Result<Vec<OsString>, DataError> {
    Ok(frame_entries(folder, prefix)?.into_iter().map(|(name, _)| name).collect())
}

/// As [`frames_in`], with the entries of the folder.
pub(super) fn frame_entries(folder: &Path, prefix: &str) -> Result<Vec<(OsString, fs::DirEntry)>, DataError> {
    let [mut jpeg, mut png] = [const { Vec::new() }; 2];
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        let name = entry.file_name();
        let bytes = name.as_bytes();
        if bytes.starts_with(b".") || !bytes.starts_with(prefix.as_bytes()) {
            continue;
        }
        let is =
            |extension: &str| Path::new(&name).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
        let (is_jpeg, is_png) = (is("jpg") || is("jpeg"), is("png"));
        if is_jpeg {
            jpeg.push((name, entry));
        } else if is_png {
            png.push((name, entry));
        }
    }
    let mut frames = if jpeg.is_empty() { png } else { jpeg };
    frames.sort_by(|(a, _), (b, _)| natural(a, b));
    Ok(frames)
}

/// The first two neighbours between which frames are missing: the numbers of a scene's frames have equal steps otherwise.
pub(super) fn gap(frames: &[OsString]) -> Option<[&OsStr; 2]> {
    let numbers: Vec<i64> = frames.iter().map(|name| last_number(name)).collect::<Option<_>>()?;
    let step = numbers.windows(2).map(|pair| pair[1] - pair[0]).min()?;
    let at = numbers.windows(2).position(|pair| pair[1] - pair[0] != step)?;
    Some([&frames[at], &frames[at + 1]])
}

/// The last number of a name before its extension.
fn last_number(name: &OsStr) -> Option<i64> {
    let stem = Path::new(name).file_stem()?.as_bytes();
    let end = stem.iter().rposition(u8::is_ascii_digit)? + 1;
    let start = stem[..end].iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |before| before + 1);
    // Longer numbers are no counts.
    str::from_utf8(&stem[start..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn numbers_count_by_their_value() {
        let order = ["a", "im_0.jpg", "im_01.jpg", "im_1.jpg", "im_2.jpg", "im_10.jpg", "im_10a.jpg", "im_x.jpg"];
        let mut names: Vec<&OsStr> = order.iter().rev().map(OsStr::new).collect();
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, order);
        let huge = ["traj99999999999999999999", "traj100000000000000000000"].map(OsStr::new);
        assert_eq!(natural(huge[0], huge[1]), Ordering::Less);
    }

    #[test]
    fn frames_are_images_of_one_kind() {
        let root = tempfile::tempdir().unwrap();
        for name in ["im_10.jpg", "im_9.JPG", "im_2.png", "other_1.jpg", ".im_1.jpg", "notes.txt"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        let names = |prefix| frames_in(root.path(), prefix).unwrap();
        assert_eq!(
            names("im_").iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(),
            ["im_9.JPG", "im_10.jpg"]
        );
        assert_eq!(names("").len(), 3);
        fs::remove_file(root.path().join("im_10.jpg")).unwrap();
        fs::remove_file(root.path().join("im_9.JPG")).unwrap();
        assert_eq!(names("im_").len(), 1, "PNG where there is no JPEG");
    }

    #[test]
    fn a_missing_frame_is_found() {
        let frames = |names: &[&str]| names.iter().map(OsString::from).collect::<Vec<_>>();
        for names in [&["im_0.jpg", "im_1.jpg", "im_2.jpg"][..], &["005.png", "010.png", "015.png"], &["a", "b"], &[]] {
            assert_eq!(gap(&frames(names)), None, "{names:?}");
        }
        let with_gap = frames(&["im_0.jpg", "im_1.jpg", "im_3.jpg"]);
        assert_eq!(gap(&with_gap), Some([OsStr::new("im_1.jpg"), OsStr::new("im_3.jpg")]));
    }
}
