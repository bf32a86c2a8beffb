//! What a dataset says about itself, and the fingerprint that names its data.
#![allow(clippy::unwrap_used)]

mod opened;

use hlrp_data::formats::{self, FeatureKind, OpenOptions};
use hlrp_data::{Description, preflight};
use hlrp_schema::SourceConfig;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn describe(root: &Path) -> Description {
    formats::open(root, &OpenOptions::new(1 << 20)).unwrap().describe().clone()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn source(root: &Path, camera: &str) -> SourceConfig {
    SourceConfig {
        state_key: Some("observation.state".to_owned()),
        num_val_episodes: 1,
        ..opened::source(root, camera)
    }
}

#[test]
fn features_have_kinds_and_sizes() {
    let found = describe(&fixture("metaworld_mt5"));
    assert_eq!((found.fps, found.num_episodes, found.num_frames, found.tasks.len()), (80.0, 50, 3539, 5));
    assert_eq!(found.keys(FeatureKind::Camera).collect::<Vec<_>>(), ["observation.image"]);
    let size = found.features["observation.image"].frame_size().unwrap();
    assert_eq!((size.height, size.width), (128, 128));
    assert_eq!(found.feature("action", FeatureKind::Vector).unwrap().num_values(), 4);
    assert!(found.feature("action", FeatureKind::Camera).is_none());
    assert_eq!(found.statistics["action"].values["mean"].len(), 4);
}

#[test]
fn a_fingerprint_moves_with_the_folder_and_changes_with_a_file() {
    let original = describe(&fixture("hevc")).fingerprint;
    assert_eq!(original.len(), 32);
    let folder = TempDir::new().unwrap();
    copy_tree(&fixture("hevc"), folder.path());
    assert_eq!(describe(folder.path()).fingerprint, original, "names and content alone count");

    fs::write(folder.path().join("README.md"), "notes").unwrap();
    fs::write(folder.path().join("data/.part"), "hidden").unwrap();
    fs::write(folder.path().join("meta/stats.json"), "{}").unwrap();
    assert_eq!(describe(folder.path()).fingerprint, original, "what is not data does not count");

    let video = folder.path().join("videos/observation.images.front/chunk-000/file-000.mp4");
    let whole = fs::read(&video).unwrap();
    let mut replaced = whole.clone();
    let last = replaced.len() - 1;
    replaced[last] ^= 1;
    fs::write(&video, &replaced).unwrap();
    assert_ne!(describe(folder.path()).fingerprint, original, "a file of the same size");
    fs::write(&video, &whole).unwrap();
    assert_eq!(describe(folder.path()).fingerprint, original);

    let info = folder.path().join("meta/info.json");
    let text = fs::read_to_string(&info).unwrap();
    fs::write(&info, text.replace("\"fps\": 20", "\"fps\": 10")).unwrap();
    assert_ne!(describe(folder.path()).fingerprint, original, "the metadata");
}

#[test]
fn two_datasets_have_two_fingerprints() {
    assert_ne!(describe(&fixture("hevc")).fingerprint, describe(&fixture("h264_bframes")).fingerprint);
}

#[test]
fn the_preflight_names_the_key_that_is_wrong() {
    let refusal = |source| {
        let error = preflight(&[("robot".to_owned(), source)].into(), Path::new("")).unwrap_err();
        assert!(matches!(error, hlrp_data::DataError::Problem(_)), "{error}");
        hlrp_config::with_hint(&error)
    };
    let root = fixture("hevc");
    let good = source(&root, "observation.images.front");
    preflight(&[("robot".to_owned(), good.clone())].into(), Path::new("")).unwrap();

    let missing = refusal(source(Path::new("/no/dataset"), "x"));
    assert!(missing.starts_with("data.sources.robot.root: /no/dataset: there is no such folder\nhint: "), "{missing}");
    let other = refusal(source(root.parent().unwrap(), "x"));
    assert!(other.contains("data.sources.robot.root: ") && other.contains("meta/"), "{other}");
    let camera = refusal(source(&root, "observation.state"));
    assert!(camera.starts_with("data.sources.robot.cameras.primary: "), "{camera}");
    assert!(
        camera.contains("has no colour camera `observation.state`\nhint: there are observation.images.front"),
        "{camera}"
    );
    let folder = TempDir::new().unwrap();
    copy_tree(&root, folder.path());
    let info = folder.path().join("meta/info.json");
    let text = fs::read_to_string(&info).unwrap();
    fs::write(&info, text.replace("\"is_depth_map\": false", "\"is_depth_map\": true")).unwrap();
    let depth = refusal(source(folder.path(), "observation.images.front"));
    assert!(depth.starts_with("data.sources.robot.cameras.primary: `observation.images.front` of "), "{depth}");
    assert!(depth.contains("is a depth map, not a colour camera\nhint: the dataset has no colour camera"), "{depth}");
    let vector = refusal(SourceConfig { state_key: Some("state".to_owned()), ..good.clone() });
    assert!(vector.starts_with("data.sources.robot.state_key: "), "{vector}");
    let none_held_out = refusal(SourceConfig { num_val_episodes: 0, ..good });
    assert!(none_held_out.starts_with("data.sources.robot.num_val_episodes: "), "{none_held_out}");
}
