//! Files and folders appear whole or not at all, and never at the cost of the last free space.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use hlrp_config::with_hint;
use hlrp_track::{
    TrackError,
    fs::{OnExisting, check_free, ensure_free, free_bytes, publish_dir, write_atomic, write_atomic_with},
};
use std::{fs, io, io::Write, path::Path};

const GIB: u64 = 1 << 30;

/// Names of everything in `dir`, hidden files included.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    write_atomic(&path, "old").unwrap();
    write_atomic(&path, "new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(names(dir.path()), ["state.json"]);
}

#[test]
fn a_write_that_fails_half_way_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    write_atomic(&path, "old").unwrap();
    let error = write_atomic_with(&path, |file| {
        file.write_all(b"half")?;
        Err(io::Error::from(io::ErrorKind::StorageFull))
    })
    .unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot write {}", path.display())), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names(dir.path()), ["state.json"]);
}

#[test]
fn a_file_gets_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let [ours, plain] = ["ours", "plain"].map(|name| dir.path().join(name));
    write_atomic(&ours, "").unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}

#[test]
fn a_folder_appears_with_all_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let final_dir = dir.path().join("step-000080");
    publish_dir(&final_dir, OnExisting::Refuse, |partial| -> Result<(), TrackError> {
        assert!(!final_dir.exists(), "nothing is visible while it is filled");
        fs::create_dir(partial.join("sub")).unwrap();
        fs::write(partial.join("sub/a"), "a").unwrap();
        write_atomic(&partial.join("b"), "b")
    })
    .unwrap();
    assert_eq!(names(dir.path()), ["step-000080"]);
    assert_eq!(names(&final_dir), ["b", "sub"]);
}

#[test]
fn a_folder_that_cannot_be_filled_does_not_appear() {
    let dir = tempfile::tempdir().unwrap();
    let final_dir = dir.path().join("step-000080");
    let error = publish_dir(&final_dir, OnExisting::Refuse, |partial| {
        fs::write(partial.join("model"), "half").unwrap();
        ensure_free(partial, u64::MAX / 2, 0.0)
    })
    .unwrap_err();
    assert!(matches!(error, TrackError::NoSpace { .. }), "{error}");
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[test]
fn what_a_kill_left_behind_is_cleared_by_the_next_publication_only_of_that_name() {
    let dir = tempfile::tempdir().unwrap();
    for name in [".step-000080.partial", ".step-000160.partial"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("model"), "half").unwrap();
    }
    publish_dir(&dir.path().join("step-000080"), OnExisting::Refuse, |partial| {
        write_atomic(&partial.join("state"), "1")
    })
    .unwrap();
    assert_eq!(names(dir.path()), [".step-000160.partial", "step-000080"]);
    assert_eq!(names(&dir.path().join("step-000080")), ["state"]);
}

#[test]
fn an_existing_folder_is_never_lost() {
    let dir = tempfile::tempdir().unwrap();
    let final_dir = dir.path().join("step-000080");
    let publish = |content: &'static str, on_existing| {
        publish_dir(&final_dir, on_existing, |partial| write_atomic(&partial.join("state"), content))
    };
    publish("first", OnExisting::Refuse).unwrap();
    assert!(matches!(publish("second", OnExisting::Refuse), Err(TrackError::Exists { .. })));
    publish("second", OnExisting::MoveAside).unwrap();
    publish("third", OnExisting::MoveAside).unwrap();
    let state = |name: &str| fs::read_to_string(dir.path().join(name).join("state")).unwrap();
    assert_eq!(state("step-000080"), "third");
    assert_eq!(state("step-000080.superseded-1"), "first");
    assert_eq!(state("step-000080.superseded-2"), "second");
}

#[test]
fn a_folder_that_is_to_be_replaced_holds_only_the_new_files_and_a_failed_one_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let final_dir = dir.path().join("best");
    let publish = |file: &str, fails: bool| {
        publish_dir(&final_dir, OnExisting::Replace, |partial| -> Result<(), TrackError> {
            write_atomic(&partial.join(file), file)?;
            if fails { Err(TrackError::Exists { path: partial.to_path_buf() }) } else { Ok(()) }
        })
    };
    publish("first", false).unwrap();
    publish("second", false).unwrap();
    assert_eq!((names(&final_dir), names(dir.path())), (vec!["second".to_owned()], vec!["best".to_owned()]));
    publish("third", true).unwrap_err();
    assert_eq!((names(&final_dir), names(dir.path())), (vec!["second".to_owned()], vec!["best".to_owned()]));
}

#[test]
fn a_nearly_full_disk_is_refused_with_what_to_do() {
    let path = Path::new("/runs/a");
    check_free(path, 5 * GIB, 2 * GIB, 3.0).unwrap();
    let error = with_hint(&check_free(path, 5 * GIB - 1, 2 * GIB, 3.0).unwrap_err());
    for part in ["/runs/a", "5.00 GiB free", "needs 2.00 GiB", "leave 3.00 GiB", "hint:", "logging.min_free_gb"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
}

#[test]
fn free_space_is_that_of_the_disk_also_for_a_folder_that_does_not_exist_yet() {
    let dir = tempfile::tempdir().unwrap();
    let free = free_bytes(&dir.path().join("not/yet")).unwrap();
    assert!(free > 0);
    ensure_free(dir.path(), 0, 0.0).unwrap();
    ensure_free(dir.path(), 2 * free, 0.0).unwrap_err();
}
