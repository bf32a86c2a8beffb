//! Files in folders that others made: checkpoints, artifacts, models, run directories. A name in such a folder may lead anywhere, to a device or
//! to a file of any size.

use std::{
    fs, io,
    path::{Component, Path},
};

/// Upper bound for descriptions, tables and tokenizers.
pub const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Upper bound for files of weights.
pub const MAX_WEIGHT_BYTES: u64 = 256 << 30;

/// Whether `name` is a plain file name, without a folder.
pub fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
}

/// The size in bytes of a regular file of at most `max_bytes`. A link is followed if it stays inside the file's folder or, in a snapshot of
/// the Hugging Face cache, inside the model's entry.
///
/// # Errors
/// The file is missing, not a regular file, outside its folder, or larger.
pub fn inspect(path: &Path, max_bytes: u64) -> io::Result<u64> {
    let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return refuse("it is not a regular file".to_owned());
    }
    if fs::symlink_metadata(path)?.is_symlink() && !stays_inside(path)? {
        return refuse("it is a link that leads out of its folder".to_owned());
    }
    if metadata.len() > max_bytes {
        return refuse(format!("it has {} bytes, more than {max_bytes}", metadata.len()));
    }
    Ok(metadata.len())
}

/// As [`inspect`], for a file of the folder `root`: a link is followed if it stays inside `root`, however deep the file is.
///
/// # Errors
/// Those of [`inspect`].
pub fn inspect_below(root: &Path, path: &Path, max_bytes: u64) -> io::Result<u64> {
    let metadata = fs::metadata(path)?;
    let (target, root) = (fs::canonicalize(path)?, fs::canonicalize(root)?);
    if metadata.is_file() && !target.starts_with(&root) && !target.starts_with(entry_of(&root).unwrap_or(&root)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is a link that leads out of its folder"));
    }
    inspect(&target, max_bytes)
}

/// The text of a file that [`inspect`] accepts with at most [`MAX_TEXT_BYTES`].
///
/// # Errors
/// Those of [`inspect`], and text that is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    inspect(path, MAX_TEXT_BYTES)?;
    fs::read_to_string(path)
}

fn stays_inside(path: &Path) -> io::Result<bool> {
    let target = fs::canonicalize(path)?;
    let folder =
        fs::canonicalize(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    Ok(target.starts_with(&folder) || entry_of(&folder).is_some_and(|entry| target.starts_with(entry)))
}

/// The entry of the Hugging Face cache that has the snapshot `folder`.
fn entry_of(folder: &Path) -> Option<&Path> {
    folder.parent().filter(|parent| parent.ends_with("snapshots")).and_then(Path::parent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn plain_names_stay_in_their_folder() {
        assert!(is_plain_name("model.safetensors") && is_plain_name(".hidden"));
        for name in ["", ".", "..", "/dev/zero", "../x", "a/b", "a/", "./a"] {
            assert!(!is_plain_name(name), "{name}");
        }
    }

    #[test]
    fn only_regular_files_of_the_folder_are_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        fs::create_dir_all(folder.join("inner")).unwrap();
        fs::write(folder.join("own"), "12345").unwrap();
        fs::write(root.path().join("outside"), "secret").unwrap();
        symlink("own", folder.join("link")).unwrap();
        symlink("../outside", folder.join("out")).unwrap();
        symlink("/dev/zero", folder.join("device")).unwrap();
        assert_eq!(inspect(&folder.join("own"), 5).unwrap(), 5);
        assert_eq!(read_text(&folder.join("link")).unwrap(), "12345");
        for (name, what) in [
            ("device", "not a regular file"),
            ("inner", "not a regular file"),
            ("out", "leads out of its folder"),
            ("own", "more than 4"),
        ] {
            let error = inspect(&folder.join(name), 4).unwrap_err().to_string();
            assert!(error.contains(what), "{name}: {error}");
        }
    }

    #[test]
    fn a_snapshot_of_the_hugging_face_cache_links_to_its_blobs() {
        let root = tempfile::tempdir().unwrap();
        let snapshot = root.path().join("models--a--b/snapshots/0123");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(root.path().join("models--a--b/blobs")).unwrap();
        fs::write(root.path().join("models--a--b/blobs/x"), "{}").unwrap();
        symlink("../../blobs/x", snapshot.join("config.json")).unwrap();
        assert_eq!(read_text(&snapshot.join("config.json")).unwrap(), "{}");
        fs::create_dir(snapshot.join("meta")).unwrap();
        symlink("../../../blobs/x", snapshot.join("meta/info.json")).unwrap();
        assert_eq!(inspect_below(&snapshot, &snapshot.join("meta/info.json"), 2).unwrap(), 2);
    }

    #[test]
    fn a_link_of_a_dataset_may_lead_anywhere_in_it() {
        let root = tempfile::tempdir().unwrap();
        let dataset = root.path().join("dataset");
        fs::create_dir_all(dataset.join("data/chunk")).unwrap();
        fs::create_dir(dataset.join("objects")).unwrap();
        fs::write(dataset.join("objects/x"), "12").unwrap();
        fs::write(root.path().join("outside"), "secret").unwrap();
        symlink("../../objects/x", dataset.join("data/chunk/own")).unwrap();
        symlink("../../../outside", dataset.join("data/chunk/out")).unwrap();
        symlink("/dev/zero", dataset.join("data/chunk/device")).unwrap();
        let linked = root.path().join("linked");
        symlink("dataset", &linked).unwrap();
        for root in [&dataset, &linked] {
            let inspect = |name: &str| inspect_below(root, &root.join("data/chunk").join(name), 5);
            assert_eq!(inspect("own").unwrap(), 2);
            assert!(inspect("out").unwrap_err().to_string().contains("leads out of its folder"));
            assert!(inspect("device").unwrap_err().to_string().contains("not a regular file"));
            assert_eq!(inspect("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
