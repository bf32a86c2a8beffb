//! A frame is the same whatever was read before it: alone, in order, backwards, or twice in one request.
#![cfg(feature = "ffmpeg")]
#![allow(non_snake_case)] // shape suffixes
#![allow(clippy::unwrap_used)]

use hlrp_data::{
    Dataset, FrameReader, FrameSize,
    formats::lerobot::{LeRobotDataset, TableCache},
};
use std::{path::Path, sync::Arc};

fn open(name: &str) -> Arc<LeRobotDataset> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name);
    Arc::new(LeRobotDataset::open(&root, &TableCache::new(1 << 20)).unwrap())
}

fn read(reader: &mut dyn FrameReader, rows: &[u64], frame_len: usize) -> Vec<Vec<u8>> {
    let mut out_TCHW = vec![0; rows.len() * frame_len];
    reader.read(rows, &mut out_TCHW).unwrap();
    out_TCHW.chunks_exact(frame_len).map(<[u8]>::to_vec).collect()
}

fn any_order_gives_the_same_frames(name: &str) {
    let dataset = open(name);
    for camera in dataset.camera_keys() {
        let store = Arc::clone(&dataset).frame_store(camera, None).unwrap();
        let FrameSize { height, width } = store.size();
        let frame_len = 3 * height * width;
        let num_frames = dataset.num_frames().min(80);
        let all: Vec<u64> = (0..num_frames).collect();
        let in_order = read(&mut *store.reader(4).unwrap(), &all, frame_len);

        let mut reader = store.reader(1).unwrap();
        // A walk that visits every frame, with long and short steps both ways (37 and any count here are coprime).
        for step in 0..num_frames {
            let row = step * 37 % num_frames;
            let rows = [row, (row + 5).min(num_frames - 1), row.saturating_sub(2), row];
            let frames = read(&mut *reader, &rows, frame_len);
            for (row, frame) in rows.iter().zip(&frames) {
                assert!(*frame == in_order[*row as usize], "{name}, {camera}: row {row} of {rows:?} differs");
            }
        }
        let distinct: std::collections::HashSet<_> = in_order.iter().collect();
        assert!(distinct.len() > in_order.len() / 2, "{name}: frames repeat, so the test shows little");
    }
}

#[test]
fn av1() {
    any_order_gives_the_same_frames("metaworld_mt5");
}

#[test]
fn av1_in_many_files_with_one_open_at_a_time() {
    any_order_gives_the_same_frames("stress_v3");
}

#[test]
fn h264_with_b_frames() {
    any_order_gives_the_same_frames("h264_bframes");
}

#[test]
fn hevc_with_closed_groups() {
    any_order_gives_the_same_frames("hevc");
}

#[test]
fn hevc_whose_frames_depend_on_the_group_before() {
    any_order_gives_the_same_frames("hevc_open_gop");
}

#[test]
fn embedded_images() {
    any_order_gives_the_same_frames("embedded_images");
}

#[test]
fn frames_come_in_the_size_asked_for() {
    let dataset = open("metaworld_mt5");
    let size = FrameSize { height: 40, width: 72 };
    let store = Arc::clone(&dataset).frame_store("observation.image", Some(size)).unwrap();
    assert_eq!(store.size(), size);
    let small = read(&mut *store.reader(1).unwrap(), &[100], 3 * 40 * 72).remove(0);
    let native = read(
        &mut *Arc::clone(&dataset).frame_store("observation.image", None).unwrap().reader(1).unwrap(),
        &[100],
        3 * 128 * 128,
    );
    let from = FrameSize { height: 128, width: 128 };
    assert_eq!(small, hlrp_data::resize_planes(from, &native[0], size).unwrap());
}
