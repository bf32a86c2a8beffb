//! `hlrp-data show` reports what is in a dataset and draws it.
#![cfg(feature = "ffmpeg")]
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};

fn hlrp_data(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hlrp-data"))
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_text_names_frames_cameras_features_and_tasks() {
    let text = hlrp_data(&["show", "tests/data/metaworld_mt5", "--no-sheet"]);
    for line in [
        "frames      3539 at 80 per second, 44 s",
        "camera      observation.image  128x128, av1 video, a keyframe every 2, 1 file",
        "feature     action  float32 [4]",
        "task           10 episodes  Reach a goal position",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "no line starts with {line:?}:\n{text}");
    }
}

#[test]
fn an_episode_with_two_tasks_counts_for_both() {
    let text = hlrp_data(&["show", "tests/data/stress_v3", "--no-sheet"]);
    let counts: usize = text
        .lines()
        .filter_map(|line| line.strip_prefix("task "))
        .map(|line| line.split_whitespace().next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert!(counts > 60, "{text}");
}

#[test]
fn the_contact_sheet_shows_every_camera() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sheet.png");
    hlrp_data(&["show", "tests/data/stress_v3", "--episodes", "3", "--times", "4", "--out", out.to_str().unwrap()]);
    let sheet = image::open(&out).unwrap().into_rgb8();
    // Two cameras of three episodes, 128 pixels high, under a title; four images, 128 pixels wide, beside a label.
    assert_eq!(sheet.dimensions(), (220 + 4 * 132 + 4, 40 + 6 * 144));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the sheet");
    let is_white = |pixel: &image::Rgb<u8>| pixel.0 == [255; 3];
    // The last episode has two frames, so two images on its line.
    let image = |column: u32| image::imageops::crop_imm(&sheet, 220 + column * 132, 40 + 5 * 144, 128, 128).to_image();
    assert_eq!([0, 1, 2, 3].map(|column| image(column).pixels().all(is_white)), [false, false, true, true]);
}

/// A copy of a dataset of which some files were never downloaded.
fn part_of_stress_v3(missing: &[&str]) -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/stress_v3");
    let part = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(root.join(".")).arg(part.path()).status().unwrap();
    assert!(copied.success());
    missing.iter().for_each(|file| std::fs::remove_file(part.path().join(file)).unwrap());
    part
}

#[test]
fn a_part_of_a_dataset_is_shown_as_far_as_it_is_here() {
    let part =
        part_of_stress_v3(&["data/chunk-001/file-001.parquet", "videos/observation.images.top/chunk-000/file-000.mp4"]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sheet.png");
    let text = hlrp_data(&["show", part.path().to_str().unwrap(), "--episodes", "60", "--out", out.to_str().unwrap()]);
    let here = text.lines().find(|line| line.starts_with("here")).unwrap();
    let counts: Vec<usize> = here.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    assert_eq!(counts.len(), 4, "{here}");
    assert!(counts[0] == 60 && counts[1] < 60 && counts[3] < counts[2] && counts[2] == counts[1], "{here}");
    let sheet = image::open(&out).unwrap().into_rgb8();
    // Every episode with rows has a line for each camera, also for the one whose file is missing.
    assert_eq!(sheet.height() as usize, 40 + counts[1] * 2 * 144);
    let whole = hlrp_data(&["show", "tests/data/stress_v3", "--no-sheet"]);
    assert!(!whole.lines().any(|line| line.starts_with("here")), "{whole}");
}

#[test]
fn ffmpeg_info_is_json() {
    let info: serde_json::Value = serde_json::from_str(&hlrp_data(&["ffmpeg-info"])).unwrap();
    assert!(info["ffmpeg"].is_string() && info["decoders"]["h264"].is_string(), "{info}");
}

#[test]
fn the_contact_sheet_goes_into_the_cache_and_not_into_the_working_directory() {
    let (work, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hevc");
    let output = Command::new(env!("CARGO_BIN_EXE_hlrp-data"))
        .args(["show", "--episodes", "1", "--times", "1"])
        .arg(dataset)
        .current_dir(work.path())
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sheet = cache.path().join("hlrp/contact_sheets/hevc.png");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(&format!("contact sheet: {}\n", sheet.display())));
    assert!(image::open(&sheet).is_ok());
    assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0);
}
