//! Batches of folders of scenes, of both forms: every pair of frames with its true distance, instructions, and the ways of choosing scenes.
#![allow(clippy::unwrap_used)]

mod opened;

use hlrp_config::with_hint;
use hlrp_data::{
    DataError, FrameSize, Loader, Mixture, Position, Shard, Split,
    formats::{self, OpenOptions},
};
use hlrp_schema::{
    CacheConfig, DataConfig, DeltaUnit, RequestConfig, Resize, SceneSplitConfig, SceneSplitMode, ScenesConfig,
    SourceConfig,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};
use tempfile::TempDir;

const SIZE: FrameSize = FrameSize { height: 8, width: 8 };
const BATCH: usize = 4;
/// Frames of the scenes of the table, of which the third has too few for a pair.
const LENGTHS: [u8; 4] = [12, 5, 3, 9];
const TRAJECTORIES: [(&str, &str, u8); 3] = [
    ("bridge_data_v1/berkeley/toykitchen1/put_spoon/2021-01-02_03-04-05/raw/traj_group0/traj2", "put the spoon", 6),
    ("bridge_data_v1/berkeley/toykitchen1/put_spoon/2021-01-02_03-04-05/raw/traj_group0/traj10", "", 5),
    ("bridge_data_v2/toysink2/many/00/2023-01-02_03-04-05/raw/traj_group1/traj0", "close the door", 7),
];

/// A frame whose every pixel says which scene and which frame it is.
fn write_frame(path: &Path, scene: u8, frame: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(8, 8, image::Rgb([scene, frame, 100])).save(path).unwrap();
}

/// A table of scenes, whose lines are in no order.
fn write_table(root: &Path) {
    let mut lines = vec!["scene_idx,scene_folder,start_frame,end_frame,label,take,language".to_owned()];
    for (scene, length) in LENGTHS.into_iter().enumerate().rev() {
        let label = if scene % 2 == 0 { "good" } else { "" };
        let take = scene / 2;
        lines.push(format!("{scene},cut/{scene},100,{},{label},{take},", 100 + u64::from(length)));
        for frame in 0..length {
            write_frame(&root.join(format!("cut/{scene}/{frame}.png")), scene as u8, frame);
        }
    }
    fs::write(root.join("scenes.csv"), lines.join("\n")).unwrap();
}

fn write_tree(root: &Path) {
    for (number, (folder, language, length)) in TRAJECTORIES.into_iter().enumerate() {
        for frame in 0..length {
            let path = root.join(folder).join(format!("images0/im_{frame}.png"));
            write_frame(&path, 10 + number as u8, frame);
        }
        fs::write(root.join(folder).join("lang.txt"), format!("{language}\nconfidence: 0.9\n")).unwrap();
    }
}

fn filters(section: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(section).unwrap()
}

fn split(mode: SceneSplitMode) -> SceneSplitConfig {
    SceneSplitConfig { mode, seed: 1, val_ratio: None, val_filters: None, num_val_pairs: None }
}

fn source(root: &Path, fps: f64) -> SourceConfig {
    let scenes = ScenesConfig { fps, filters: BTreeMap::new(), min_frames: 2, split: None };
    SourceConfig { scenes: Some(scenes), ..opened::source(root, "image") }
}

fn config(sources: BTreeMap<String, SourceConfig>) -> DataConfig {
    let root = sources.values().find_map(|source| source.root.as_deref()).unwrap();
    let dir = root.parent().unwrap().join("cache");
    DataConfig {
        sources,
        request: RequestConfig {
            unit: DeltaUnit::Seconds,
            image_deltas: vec![0.0, 0.4],
            state_deltas: vec![0.0],
            action_deltas: vec![0.0],
        },
        loader: opened::loader(BATCH),
        filter: None,
        // Beside the scenes, which are in a folder of their own.
        resize: Resize::Host,
        cache: CacheConfig { enabled: false, dir, verify: false },
    }
}

fn open(config: &DataConfig) -> Result<Arc<Mixture>, DataError> {
    opened::open(config, SIZE)
}

#[test]
fn every_pair_has_its_true_distance_and_its_instruction() {
    let root = TempDir::new().unwrap();
    let (table, tree) = (root.path().join("table"), root.path().join("tree"));
    write_table(&table);
    write_tree(&tree);
    // 0.4 s are four frames of the table and two of the tree.
    let config = config([("table".into(), source(&table, 10.0)), ("tree".into(), source(&tree, 5.0))].into());
    let mixture = open(&config).unwrap();
    let num_anchors = (8 + 1 + 5) + (4 + 3 + 5);
    assert_eq!(mixture.anchors(Split::Train).len(), num_anchors);
    let mut loader = Loader::train(&mixture, 3, Shard::SINGLE, Position::default()).unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..num_anchors.div_ceil(BATCH as u64) {
        let batch = loader.next_batch().unwrap();
        assert!(batch.state.is_none() && batch.action.is_none());
        for (b, meta) in batch.meta.iter().enumerate() {
            let (first_scene, step) = if meta.source == "table" { (0, 4) } else { (10, 2) };
            let [first, second] = [0, 1].map(|t| {
                let plane = SIZE.height * SIZE.width;
                let pixels = &batch.images["primary"].pixels_BTCHW[(2 * b + t) * 3 * plane..];
                (u64::from(pixels[0]), u64::from(pixels[plane]))
            });
            assert_eq!(first, (first_scene + meta.episode, meta.frame));
            assert_eq!(second, (first.0, first.1 + step), "no pair is shortened");
            assert!((meta.dt_s - 0.4).abs() < 1e-9);
            let task = if meta.source == "table" { "" } else { TRAJECTORIES[meta.episode as usize].1 };
            assert_eq!(batch.task[b], task);
            seen.insert((meta.source.clone(), meta.episode, meta.frame));
        }
    }
    assert!(seen.len() as u64 > num_anchors - BATCH as u64, "each once in an epoch");
}

/// Scenes for training and those held out.
fn scenes(source: &SourceConfig) -> Result<[Vec<u64>; 2], DataError> {
    let mixture = open(&config([("scenes".into(), source.clone())].into()))?;
    let of = |split| mixture.sources()[0].episodes(split).iter().map(|span| span.episode).collect::<Vec<_>>();
    Ok([of(Split::Train), of(Split::Validation)])
}

#[test]
fn conditions_choose_scenes_without_renumbering_them() {
    let root = TempDir::new().unwrap();
    let (table, tree) = (root.path().join("table"), root.path().join("tree"));
    write_table(&table);
    write_tree(&tree);
    let chosen = |root: &Path, section: Value| {
        let mut source = source(root, 10.0);
        source.scenes.as_mut().unwrap().filters = filters(section);
        scenes(&source).map(|[train, _]| train).map_err(|error| with_hint(&error))
    };
    for (section, wanted) in [
        (json!({}), vec![0, 1, 2, 3]),
        (json!({"label": "good"}), vec![0, 2]),
        (json!({"label": ["!=", "good"], "num_frames": [">", 5]}), vec![3]),
        (json!({"take": ["1"]}), vec![2, 3]),
        (json!({"language": null, "scene_idx": ["in", [1, 2]]}), vec![1, 2]),
        (json!({"hand_mask_folder_sam3": null, "contains_hand_sam3": false, "max_trans": 0}), vec![0, 1, 2, 3]),
        (json!({"video_id": "table", "dataset_type": "youtube", "start_frame": [">=", 100]}), vec![0, 1, 2, 3]),
    ] {
        assert_eq!(chosen(&table, section.clone()), Ok(wanted), "{section}");
    }
    for (section, wanted) in [
        (json!({"language": ["not_null"]}), vec![0, 2]),
        (json!({"subset": "bridge_data_v1", "institution": "berkeley", "task": "put_spoon"}), vec![0, 1]),
        (json!({"environment": ["toysink2", "toysink3"], "robot": "widowx", "institution": null}), vec![2]),
        (json!({"traj_id": "traj_group0/traj10", "dataset_type": "bridge"}), vec![1]),
        (json!({"dated_folder": "2023-01-02_03-04-05"}), vec![2]),
    ] {
        assert_eq!(chosen(&tree, section.clone()), Ok(wanted), "{section}");
    }
    for section in [json!({"label": "bad"}), json!({"lable": ["!=", "bad"]}), json!({"take": 1})] {
        let text = chosen(&table, section).unwrap_err();
        let words = ["source `scenes`", "none of its 4 scenes", "scenes.filters", "label", "take", "num_frames"];
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    let mut short = source(&table, 10.0);
    short.scenes.as_mut().unwrap().min_frames = 6;
    assert_eq!(scenes(&short).unwrap(), [vec![0, 3], vec![]]);
}

#[test]
fn scenes_are_held_out_in_three_ways_or_as_in_other_formats() {
    let root = TempDir::new().unwrap();
    let table = root.path().join("table");
    write_table(&table);
    let held_out = |split: SceneSplitConfig, change: &dyn Fn(&mut SourceConfig)| {
        let mut source = source(&table, 10.0);
        source.scenes.as_mut().unwrap().split = Some(split);
        change(&mut source);
        scenes(&source).map(|[_, held_out]| held_out).map_err(|error| with_hint(&error))
    };
    let ratio = SceneSplitConfig { val_ratio: Some(0.5), ..split(SceneSplitMode::Ratio) };
    let half = held_out(ratio.clone(), &|_| ()).unwrap();
    assert_eq!(half.len(), 2);
    assert_eq!(held_out(ratio.clone(), &|_| ()).unwrap(), half, "the seed decides");
    let only = |source: &mut SourceConfig| source.episodes = Some(vec![3]);
    assert_eq!(held_out(ratio.clone(), &only), Ok(vec![]), "the only scene stays in training");

    let good = filters(json!({"label": "good", "num_frames": [">", 3]}));
    let metadata = SceneSplitConfig { val_filters: Some(good), ..split(SceneSplitMode::Metadata) };
    assert_eq!(held_out(metadata.clone(), &|_| ()), Ok(vec![0]));
    let error = held_out(metadata, &only).unwrap_err();
    assert!(error.contains("none of its 1 scenes") && error.contains("scenes.split"), "{error}");

    // Of 8, 1, 0 and 5 pairs.
    let count = |pairs| SceneSplitConfig { num_val_pairs: Some(pairs), ..split(SceneSplitMode::FixedCount) };
    assert_eq!(held_out(count(1), &|_| ()).unwrap().len(), 1);
    assert_eq!(held_out(count(14), &|_| ()), Ok(vec![0, 1, 3]), "a scene without a pair is no help");
    let without = |source: &mut SourceConfig| source.exclude_episodes = Some(vec![2]);
    assert!(held_out(count(14), &without).unwrap_err().contains("all of its 3 scenes"));

    let mut source = source(&table, 10.0);
    source.num_val_episodes = 1;
    assert_eq!(scenes(&source).unwrap()[1], [2]);
    source.scenes = None;
    let text = with_hint(&scenes(&source).unwrap_err());
    assert!(text.contains("data.sources.scenes.scenes") && text.contains("does not record its rate"), "{text}");
}

#[test]
fn an_index_is_what_the_folders_show_until_they_change() {
    let root = TempDir::new().unwrap();
    let (tree, cache) = (root.path().join("tree"), root.path().join("cache"));
    write_tree(&tree);
    let open = |index_dir: Option<&Path>| {
        let options = OpenOptions { index_dir: index_dir.map(Path::to_owned), ..OpenOptions::new(0) };
        let dataset = formats::open(&tree, &options).map_err(|error| with_hint(&error))?;
        let tasks = dataset.episodes().iter().map(|span| dataset.task(span.from_row).unwrap()).collect::<Vec<_>>();
        Ok::<_, String>((dataset.describe().fingerprint.clone(), dataset.episodes(), tasks))
    };
    let files =
        || fs::read_dir(cache.join("scenes/tree")).unwrap().map(|entry| entry.unwrap().path()).collect::<BTreeSet<_>>();
    let images = tree.join(TRAJECTORIES[1].0).join("images0");
    let language = tree.join(TRAJECTORIES[1].0).join("lang.txt");
    let changes: [&dyn Fn(); 4] = [
        &|| (),
        &|| write_frame(&images.join("im_5.png"), 9, 9),
        &|| fs::write(&language, "lift the pot").unwrap(),
        &|| {
            fs::rename(&images, images.with_file_name("away")).unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        change();
        let direct = open(None).unwrap();
        assert_eq!(open(Some(&cache)).unwrap(), direct, "built after change {number}");
        assert_eq!(files().len(), number + 1, "a file for each state, and none is replaced");
        let before = files();
        assert_eq!(open(Some(&cache)).unwrap(), direct, "read");
        assert_eq!(files(), before);
    }
    // An index that says otherwise shows that it is what is read.
    let newest = files().into_iter().max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    fs::write(&newest, &fs::read(&newest).unwrap()[..40]).unwrap();
    let error = open(Some(&cache)).unwrap_err();
    assert!(error.contains("is not a whole index of scenes") && error.contains("hint: move it away"), "{error}");
    fs::rename(&newest, root.path().join("away")).unwrap();
    assert!(open(Some(&cache)).is_ok(), "built again");
}

#[test]
fn the_fingerprint_names_the_frames_wherever_they_are() {
    let root = TempDir::new().unwrap();
    let tree = root.path().join("tree");
    write_tree(&tree);
    let fingerprint = |root: &Path| formats::open(root, &OpenOptions::new(0)).unwrap().describe().fingerprint.clone();
    let first = fingerprint(&tree);
    let moved = root.path().join("moved");
    fs::rename(&tree, &moved).unwrap();
    assert_eq!(fingerprint(&moved), first);
    let images = moved.join(TRAJECTORIES[2].0).join("images0");
    write_frame(&images.join("im_0.png"), 99, 99);
    let replaced = fingerprint(&moved);
    assert_ne!(replaced, first);
    let third = images.join("im_3.png");
    fs::write(&third, [fs::read(&third).unwrap(), vec![0]].concat()).unwrap();
    let replaced = [replaced, fingerprint(&moved)];
    assert_ne!(replaced[1], replaced[0], "the size of every frame counts");
    let [_, replaced] = replaced;
    fs::remove_file(images.join("im_6.png")).unwrap();
    let shorter = fingerprint(&moved);
    assert_ne!(shorter, replaced);
    fs::write(moved.join(TRAJECTORIES[2].0).join("lang.txt"), "open the door").unwrap();
    assert_ne!(fingerprint(&moved), shorter);
}
