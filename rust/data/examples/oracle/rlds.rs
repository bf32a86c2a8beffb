//! An RLDS dataset against what TensorFlow Datasets reads of it: lines of the kinds `header` and `episode`.

use crate::{Compare, Tally, numbers, sha256};
use anyhow::{Context, Result, bail, ensure};
use hlrp_data::{
    Dataset, FrameSize,
    formats::{OpenOptions, rlds::RldsDataset},
};
use hlrp_schema::RldsConfig;
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How far the mean of a channel of a JPEG image may be off, of 255: TensorFlow decodes with libjpeg's fast, less exact transform.
const JPEG_MEAN_TOLERANCE: f64 = 1.5;

/// The dataset under test, opened once per split.
pub(crate) struct Subject {
    root: PathBuf,
    index_dir: tempfile::TempDir,
    splits: RefCell<BTreeMap<String, Arc<RldsDataset>>>,
}

impl Compare for Subject {
    fn compare(&self, kind: &str, line: &Value, tally: &mut Tally) -> Result<()> {
        match kind {
            "header" => self.header(line, tally),
            "episode" => self.episode(line, tally),
            other => bail!("unknown kind {other}"),
        }
    }
}

impl Subject {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_owned(), index_dir: tempfile::tempdir()?, splits: RefCell::default() })
    }

    fn split(&self, split: &str) -> Result<Arc<RldsDataset>> {
        if let Some(opened) = self.splits.borrow().get(split) {
            return Ok(Arc::clone(opened));
        }
        let config = RldsConfig { split: split.to_owned(), val_split: None, fps: 1.0, task_key: None };
        let index_dir = Some(self.index_dir.path().to_owned());
        let options = OpenOptions { rlds: Some(config), index_dir, ..OpenOptions::new(64 << 20) };
        let opened = Arc::new(RldsDataset::open(&self.root, &options)?);
        self.splits.borrow_mut().insert(split.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }

    fn header(&self, line: &Value, tally: &mut Tally) -> Result<()> {
        for (split, theirs) in line["splits"].as_object().context("no splits")? {
            let ours = self.split(split)?.describe().num_episodes;
            tally.equal(&format!("number of episodes of {split}"), Some(ours), theirs["episodes"].as_u64());
        }
        Ok(())
    }

    fn episode(&self, line: &Value, tally: &mut Tally) -> Result<()> {
        let dataset = self.split(line["split"].as_str().context("no split")?)?;
        let position = line["position"].as_u64().context("no position")? as usize;
        let span = *dataset.episodes().get(position).context("no such episode")?;
        tally.equal("number of steps", Some(span.num_frames()), line["num_steps"].as_u64());
        let steps = line["steps"].as_array().into_iter().flatten().zip(span.from_row..);
        let steps = steps.chain([(&line["first"], span.from_row), (&line["last"], span.to_row - 1)]);
        for (step, row) in steps.chain([(&line["meta"], span.from_row)]) {
            for (key, theirs) in step.as_object().into_iter().flatten() {
                match theirs {
                    Value::String(text) => tally.equal(key, &dataset.text(key, row)?, text),
                    Value::Object(image) if image.contains_key("sha256_hwc") => {
                        Self::image(&dataset, key, row, theirs, tally)?;
                    }
                    theirs => tally.numbers(key, &vector(&dataset, key, row)?, &numbers(&[theirs])),
                }
            }
        }
        Ok(())
    }

    /// PNG images are equal to the last bit, JPEG images in the mean.
    fn image(dataset: &Arc<RldsDataset>, camera: &str, row: u64, theirs: &Value, tally: &mut Tally) -> Result<()> {
        let store = Arc::clone(dataset).frame_store(camera, None)?;
        let FrameSize { height, width } = store.size();
        let mut image_CHW = vec![0; store.size().frame_bytes()];
        store.reader(1)?.read(&[row], &mut image_CHW)?;
        tally.num_images += 1;
        tally.equal("shape", serde_json::json!([height, width, 3]), theirs["shape"].clone());
        let planes: Vec<&[u8]> = image_CHW.chunks_exact(height * width).collect();
        let pixels_HWC: Vec<u8> =
            (0..height * width).flat_map(|at| [planes[0][at], planes[1][at], planes[2][at]]).collect();
        let is_exact = Some(sha256(&pixels_HWC).as_str()) == theirs["sha256_hwc"].as_str();
        tally.num_exact_rgb += usize::from(is_exact);
        let is_jpeg = dataset.describe().features[camera].dtype == "jpeg";
        ensure!(is_exact || is_jpeg, "{camera} at row {row}: other pixels than TensorFlow's");
        for (plane, mean) in planes.iter().zip(numbers(&[&theirs["mean"]])) {
            let ours = plane.iter().map(|&value| f64::from(value)).sum::<f64>() / plane.len() as f64;
            let off = (ours - mean).abs();
            tally.worst_rgb_mean = tally.worst_rgb_mean.max(off);
            ensure!(
                off <= JPEG_MEAN_TOLERANCE,
                "{camera} at row {row}: channel mean {ours:.4}, TensorFlow reads {mean:.4}"
            );
        }
        Ok(())
    }
}

fn vector(dataset: &RldsDataset, key: &str, row: u64) -> Result<Vec<f64>> {
    let feature = dataset.describe().features.get(key).with_context(|| format!("no feature {key}"))?;
    let mut values = vec![0.0; feature.num_values()];
    dataset.read_vectors(key, &[row], &mut values)?;
    Ok(values.into_iter().map(f64::from).collect())
}
