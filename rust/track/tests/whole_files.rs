//! Files and folders appear whole or not at all, and never at the cost of the last free space.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use hlrp_config::with_hint;
use hlrp_track::{
    TrackError,
    fs::{DiskRules, Free, Limit, OnExisting, Superseded, ensure_free, publish_dir, write_atomic, write_atomic_with},
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
    publish_dir(&final_dir, OnExisting::Refuse, &Superseded::Removed, |partial| -> Result<(), TrackError> {
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
    let error = publish_dir(&final_dir, OnExisting::Refuse, &Superseded::Removed, |partial| {
        fs::write(partial.join("model"), "half").unwrap();
        ensure_free(partial, u64::MAX / 2, &DiskRules::unlimited())
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
    publish_dir(&dir.path().join("step-000080"), OnExisting::Refuse, &Superseded::Removed, |partial| {
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
        publish_dir(&final_dir, on_existing, &Superseded::Removed, |partial| {
            write_atomic(&partial.join("state"), content)
        })
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
        publish_dir(&final_dir, OnExisting::Replace, &Superseded::Removed, |partial| -> Result<(), TrackError> {
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

/// What `folder` contains, by path relative to it.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.push(path.strip_prefix(folder).unwrap().display().to_string());
        }
    }
    found.sort();
    found
}

#[test]
fn where_nothing_is_deleted_everything_that_is_replaced_moves_to_superseded_under_a_name_of_its_own() {
    let run = tempfile::tempdir().unwrap();
    let kept = Superseded::new(true, run.path());
    fs::create_dir_all(run.path().join("artifacts")).unwrap();
    let best = run.path().join("artifacts/best");
    let publish = |on_existing, content: &str, fails: bool| {
        publish_dir(&best, on_existing, &kept, |partial| -> Result<(), TrackError> {
            write_atomic(&partial.join("model"), content)?;
            if fails { Err(TrackError::Exists { path: partial.to_path_buf() }) } else { Ok(()) }
        })
    };
    publish(OnExisting::Replace, "first", false).unwrap();
    publish(OnExisting::Replace, "second", false).unwrap();
    publish(OnExisting::MoveAside, "third", false).unwrap();
    publish(OnExisting::Replace, "never published", true).unwrap_err();
    // What a killed writer leaves.
    fs::create_dir(run.path().join("artifacts/.best.partial")).unwrap();
    fs::write(run.path().join("artifacts/.best.partial/model"), "half").unwrap();
    publish(OnExisting::Replace, "fourth", false).unwrap();
    let read = |path: &str| fs::read_to_string(run.path().join(path)).unwrap();
    let wanted = [
        ("artifacts/best/model", "fourth"),
        ("superseded/artifacts/best-2/model", "second"),
        ("superseded/artifacts/best-3/model", "third"),
        ("superseded/artifacts/best.partial-2/model", "half"),
        ("superseded/artifacts/best.partial/model", "never published"),
        ("superseded/artifacts/best/model", "first"),
    ];
    assert_eq!(files(run.path()), wanted.map(|(path, _)| path));
    wanted.into_iter().for_each(|(path, content)| assert_eq!(read(path), content));
    assert_eq!(fs::read_dir(run.path().join("artifacts")).unwrap().count(), 1, "no hidden folder is left");
}

#[test]
fn what_is_superseded_stays_where_it_is_and_a_file_in_the_way_is_an_error() {
    let run = tempfile::tempdir().unwrap();
    let step = run.path().join("checkpoints/step-000005");
    fs::create_dir_all(&step).unwrap();
    let kept = Superseded::new(true, run.path());
    let moved = kept.put_away(&step).unwrap().unwrap();
    assert_eq!(moved, run.path().join("superseded/checkpoints/step-000005"));
    assert_eq!(kept.put_away(&moved).unwrap(), Some(moved.clone()), "never superseded/superseded");
    assert!(moved.is_dir());
    assert_eq!(kept.put_away(&step).unwrap(), None, "there is nothing");
    for rule in [kept, Superseded::Removed] {
        fs::write(&step, "a user's file").unwrap();
        let error = rule.put_away(&step).unwrap_err().to_string();
        assert!(error.contains("step-000005"), "{error}");
        assert_eq!(fs::read_to_string(&step).unwrap(), "a user's file");
    }
}

#[test]
fn what_is_removed_is_removed_as_a_whole_also_after_a_kill() {
    let run = tempfile::tempdir().unwrap();
    let step = run.path().join("step-000005");
    for content in ["step-000005", ".step-000005.removed"] {
        fs::create_dir(run.path().join(content)).unwrap();
        fs::write(run.path().join(content).join("model"), content).unwrap();
    }
    assert_eq!(Superseded::new(false, run.path()).put_away(&step).unwrap(), None);
    assert_eq!(names(run.path()), Vec::<String>::new());
}

/// Rules with a floor of 3 GiB and 10 files.
fn rules(quota_command: Option<&[&str]>) -> DiskRules {
    let quota_command = quota_command.map(|words| words.iter().map(|&word| word.to_owned()).collect());
    DiskRules { min_free_gb: 3.0, min_free_files: 10, quota_command, ..DiskRules::unlimited() }
}

#[test]
fn a_nearly_full_disk_is_refused_with_what_to_do() {
    let path = Path::new("/runs/a");
    let free = |bytes, files| Free { bytes: Some(bytes), files: Some(files) };
    let check = |free: Free, limit| free.check(path, limit, 2 * GIB, &rules(None));
    check(free(5 * GIB, 10), Limit::Disk).unwrap();
    check(Free { bytes: None, files: None }, Limit::Quota).unwrap();
    let cases = [
        (
            free(5 * GIB - 1, 10),
            Limit::Disk,
            "5.00 GiB free on its disk, the write needs 2.00 GiB and must leave 3.00 GiB",
        ),
        (free(GIB, 10), Limit::Quota, "1.00 GiB free in its quota"),
        (free(5 * GIB, 9), Limit::Quota, "9 may still be made in its quota, and 10 must stay free"),
        (free(5 * GIB, 0), Limit::Disk, "0 may still be made on its disk"),
    ];
    for (free, limit, part) in cases {
        let error = check(free, limit).unwrap_err();
        assert_eq!(hlrp_track::exit_code::of(&error, &[]), hlrp_track::exit_code::DISK);
        let error = with_hint(&error);
        for part in ["/runs/a", part, "hint:", "logging.min_free_"] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }
}

#[test]
fn free_space_is_that_of_the_disk_also_for_a_folder_that_does_not_exist_yet() {
    let dir = tempfile::tempdir().unwrap();
    let free = Free::on_disk(&dir.path().join("not/yet")).unwrap().bytes.unwrap();
    assert!(free > 0);
    ensure_free(dir.path(), 0, &DiskRules::unlimited()).unwrap();
    ensure_free(dir.path(), 2 * free, &DiskRules::unlimited()).unwrap_err();
}

#[test]
fn a_quota_counts_as_disk_space_where_a_command_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let ask = |script: &str| ensure_free(&dir.path().join("new"), 0, &rules(Some(&["sh", "-c", script, "{path}"])));
    ask(&format!("echo {} 10", 3 * GIB)).unwrap();
    ask("echo - -").unwrap();
    ask(&format!("[ \"$0\" = '{}' ] && echo - 9", dir.path().display())).unwrap_err(); // the folder that exists
    for full in ["echo 0 1000", "echo -4096 1000"] {
        let error = ask(full).unwrap_err().to_string();
        assert!(error.contains("0.00 GiB free in its quota"), "{error}");
    }
    for silent in ["exit 1", "echo 12 GiB free", "echo", "kill $$"] {
        ask(silent).unwrap(); // a warning
    }
    ensure_free(dir.path(), 0, &rules(Some(&["/no/such/program"]))).unwrap();
}

#[test]
fn why_a_quota_is_unknown_is_one_sentence() {
    let ask = |words: &[&str]| {
        let command: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Free::in_quota(&command, Path::new("/")).unwrap_err()
    };
    assert_eq!(
        ask(&["sh", "-c", "echo no quota >&2; exit 3"]),
        "`sh -c echo no quota >&2; exit 3` fails (exit status: 3): no quota"
    );
    assert_eq!(ask(&["echo", "7"]), "`echo 7` prints \"7\" instead of two numbers, bytes and files");
    assert!(ask(&["/no/such/program"]).starts_with("`/no/such/program`: "));
}
