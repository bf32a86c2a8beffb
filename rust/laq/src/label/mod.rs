//! Latent actions as columns of a dataset: `hlrp label`.
//!
//! The labels of each episode are a file in a folder beside the new dataset until all are there, so that a command that was stopped goes on
//! where it was; nothing removes them. The new dataset appears whole ([`publish_dir`]); the one that is read stays as it is.

mod columns;
mod episode;
mod frames;

use crate::error::LaqError;
use crate::inference::LaqInference;
use crate::model::Parts;
use crate::quantizers::Scale;
use anyhow::Context;
use columns::columns;
use episode::Labeller;
use frames::FramesAhead;
use hlrp_data::formats::{self, FeatureKind, OpenOptions};
use hlrp_data::{Dataset, Request, TOLERANCE_S, Timing};
use hlrp_schema::RequestConfig;
use hlrp_schema::policy::label_columns::{CODE_VECTORS, CODES, DESCRIPTION, MANIFEST, VALID, VECTORS};
use hlrp_schema::policy::{LabelDescription, LabelScale, LabelSource, TeacherIdentity};
use hlrp_track::console::{self, Progress};
use hlrp_track::fs::{OnExisting, Superseded, publish_dir, sha256_of, write_json};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use tch::{Device, Kind, Tensor};

/// Bytes of the dataset's tables that stay in memory.
const TABLE_BYTES: usize = 64 << 20;
/// Lines of progress on a terminal that shows no bar.
const NUM_LINES: usize = 20;

/// What `hlrp label` is asked for.
#[derive(Debug)]
pub struct LabelOptions {
    /// Checkpoint folder or run directory of stage 1, or a folder of `hlrp export-laq`; the pair spacing is the one that it was trained with.
    pub checkpoint: PathBuf,
    /// Folder of a LeRobot v3 dataset.
    pub dataset: PathBuf,
    /// The new folder.
    pub out: PathBuf,
    /// Where labels come from.
    pub source: LabelSource,
    /// Folder of frame caches; frames are decoded from the dataset where there is none.
    pub cache_dir: Option<PathBuf>,
    /// Cameras that the checkpoint sees, in its order; none: the only one.
    pub cameras: Vec<String>,
    /// What the keys of the columns begin with.
    pub prefix: String,
    /// Pairs per forward pass.
    pub batch_size: usize,
    /// Of synthetic labels.
    pub seed: u64,
}

/// Writes the dataset with a label of every frame as the new folder `options.out`.
///
/// # Errors
/// A checkpoint or dataset that cannot be read, one that does not fit the other, an `out` that exists, or labels of other options that
/// a command for the same `out` left.
pub fn label(options: &LabelOptions) -> anyhow::Result<()> {
    console::init(tracing::level_filters::LevelFilter::INFO, 0)?;
    let device = hlrp_train::select_device(hlrp_schema::Device::Auto)?;
    let laq = LaqInference::load(&options.checkpoint, Parts::Encoder, device)?;
    let dataset = formats::open(&options.dataset, &OpenOptions::new(TABLE_BYTES))?;
    let described = dataset.describe();
    if options.out.exists() {
        return Err(hlrp_track::TrackError::Exists { path: options.out.clone() }.into());
    }
    let keys = [VECTORS, CODES, CODE_VECTORS, VALID].map(|name| format!("{}.{name}", options.prefix));
    dataset.check_extension(&keys.each_ref().map(String::as_str))?;
    let pair = &laq.description().pair;
    let request = RequestConfig {
        unit: pair.unit,
        image_deltas: pair.image_deltas.clone(),
        state_deltas: Vec::new(),
        action_deltas: Vec::new(),
    };
    let name = options.dataset.display().to_string();
    let timing = Timing { fps: described.fps, tolerance_s: TOLERANCE_S, source: &name, frames_per_unit: None };
    let deltas = Request::resolve(&request, &pair.image_deltas, &[], &timing)?.image_deltas;
    let cameras = cameras(&*dataset, options, laq.dims().num_views)?;
    let identity = json!({
        "source": format!("{:?}", options.source),
        "weights_sha256": laq.weights_sha256(),
        "dataset": described.fingerprint,
        "image_deltas": deltas,
        "camera": cameras.join(", "),
        "batch_size": options.batch_size,
        "seed": options.seed,
    });
    let labeller = Labeller {
        laq: &laq,
        dataset: &dataset,
        name: &folder_name(&whole(&options.dataset)),
        cache_dir: options.cache_dir.as_deref(),
        cameras: &cameras,
        deltas: [deltas[0], deltas[1]],
        source: options.source,
        batch_size: options.batch_size,
        seed: options.seed,
    };
    if options.source == LabelSource::ActionAsLatent && labeller.action_width() == 0 {
        return Err(LaqError::NoActions { dataset: options.dataset.clone() }.into());
    }
    let parts = Parted::open(&options.out, &identity)?;
    label_episodes(&labeller, &parts)?;
    let episodes = dataset.episodes();
    let columns = columns(&labeller, &options.prefix, |slot| parts.read(episodes[slot].episode))?;
    let description = describe(&labeller, &identity)?;
    let manifest = manifest(options, &labeller, &columns, &identity, &description);
    publish_dir::<anyhow::Error>(&options.out, OnExisting::Refuse, &Superseded::Removed, |partial| {
        dataset.extend(partial, &columns.all)?;
        Ok(write_json(&partial.join(MANIFEST), &manifest)?)
    })?;
    console::print(&format!(
        "{}: {} of {} frames have a label\nthe labels of single episodes stay in {}; nothing needs them any more",
        options.out.display(),
        columns.num_valid,
        described.num_frames,
        parts.dir.display()
    ));
    Ok(())
}

fn label_episodes(labeller: &Labeller<'_>, parts: &Parted) -> anyhow::Result<()> {
    let episodes = labeller.dataset.episodes();
    let todo: Vec<_> = episodes.iter().filter(|episode| !parts.path(episode.episode).exists()).collect();
    let mut num_frames: u64 =
        labeller.dataset.describe().num_frames - todo.iter().map(|episode| episode.num_frames()).sum::<u64>();
    let mut progress = Progress::new(labeller.dataset.describe().num_frames, num_frames);
    let every = todo.len().div_ceil(NUM_LINES).max(1);
    let (source, windows) = (labeller.frame_source()?, labeller.rows_of_frames(&todo));
    thread::scope(|scope| {
        let mut frames = FramesAhead::start(scope, &source, &windows);
        for (count, episode) in todo.into_iter().enumerate() {
            parts.write(episode.episode, &labeller.label(episode, &mut frames)?)?;
            num_frames += episode.num_frames();
            progress.advance(num_frames);
            if (count + 1) % every == 0 {
                progress.set(num_frames, &[("episode", episode.episode as f64)]);
            }
        }
        progress.finish();
        Ok(())
    })
}

/// The cameras that the checkpoint sees, `num_views` of them.
fn cameras(dataset: &dyn Dataset, options: &LabelOptions, num_views: i64) -> Result<Vec<String>, LaqError> {
    let available: Vec<String> = dataset.describe().keys(FeatureKind::Camera).map(str::to_owned).collect();
    let cameras = match (options.cameras.as_slice(), available.as_slice()) {
        ([], [only]) => vec![only.clone()],
        (given, _) => given.to_vec(),
    };
    if cameras.len() as i64 == num_views && cameras.iter().all(|camera| available.contains(camera)) {
        return Ok(cameras);
    }
    Err(LaqError::Camera { dataset: options.dataset.clone(), available, num_views })
}

/// What the labels are, for a policy that learns them.
fn describe(labeller: &Labeller<'_>, identity: &Value) -> anyhow::Result<LabelDescription> {
    let (laq, source) = (labeller.laq, labeller.source);
    let dims = laq.dims();
    let sha256 = match (source, laq.weights_sha256()) {
        (LabelSource::Teacher, Some(sha256)) => sha256.to_owned(),
        _ => sha256_of(identity.to_string()),
    };
    let [num_slots, width] = match source {
        LabelSource::ActionAsLatent => [1, i64::try_from(labeller.action_width())?],
        LabelSource::Teacher | LabelSource::Synthetic => [dims.code_seq_len, dims.code_dim],
    };
    let num_codes = laq.num_codes().filter(|_| source != LabelSource::ActionAsLatent);
    let teacher = TeacherIdentity {
        sha256,
        codebook_size: num_codes,
        code_seq_len: num_slots,
        code_dim: width,
        image_size: dims.image_size,
        pair: laq.description().pair.clone(),
    };
    let numbers = |tensor: &Tensor| Vec::<f32>::try_from(tensor.to_device(Device::Cpu).contiguous());
    let scale = (source != LabelSource::ActionAsLatent).then(|| {
        let Scale { mean_Q, std_Q } = laq.scale();
        Ok::<_, tch::TchError>(LabelScale { mean: numbers(mean_Q)?, std: numbers(std_Q)? })
    });
    let codebook = num_codes.map(|num_codes| {
        let ids_K1 = Tensor::arange(num_codes, (Kind::Int64, laq.device())).unsqueeze(1);
        let vectors_KQ = laq.code_vectors(&ids_K1)?.squeeze_dim(1);
        (0..num_codes).map(|code| Ok(numbers(&vectors_KQ.get(code))?)).collect::<anyhow::Result<_>>()
    });
    Ok(LabelDescription { teacher, scale: scale.transpose()?, codebook: codebook.transpose()? })
}

/// `label_manifest.json`.
fn manifest(
    options: &LabelOptions,
    labeller: &Labeller<'_>,
    columns: &columns::Columns,
    identity: &Value,
    description: &LabelDescription,
) -> Value {
    let seconds = labeller.deltas.map(|delta| delta as f64 / labeller.dataset.describe().fps);
    let short = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let keys: Vec<&str> = columns.all.iter().map(|column| column.key.as_str()).collect();
    let with_statistics: Vec<&str> =
        columns.all.iter().filter(|column| column.statistics.is_some()).map(|column| column.key.as_str()).collect();
    json!({
        "policy_type": "hlrp_laq",
        "policy_path": whole(&options.checkpoint),
        "source_dataset_repo_id": folder_name(&options.dataset),
        "source_dataset_root": whole(&options.dataset),
        "episodes": labeller.dataset.episodes().iter().map(|episode| episode.episode).collect::<Vec<_>>(),
        "output_repo_id": folder_name(&options.out),
        "output_dir": std::path::absolute(&options.out).unwrap_or_else(|_| options.out.clone()),
        "feature_prefix": options.prefix,
        "feature_names": keys.iter().map(|key| (short(key), *key)).collect::<std::collections::BTreeMap<_, _>>(),
        "valid_feature_name": format!("{}.{VALID}", options.prefix),
        "stats_feature_names": with_statistics,
        "delta_timestamps":
            labeller.cameras.iter().map(|camera| (camera.as_str(), seconds)).collect::<std::collections::BTreeMap<_, _>>(),
        "video_keys_to_load": labeller.cameras,
        "num_valid_labels": columns.num_valid,
        "identity": identity,
        (DESCRIPTION): description,
        "code_version": env!("CARGO_PKG_VERSION"),
    })
}

/// A path without links and `..`, where it exists.
fn whole(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn folder_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The labels of single episodes beside the new dataset.
struct Parted {
    dir: PathBuf,
}

impl Parted {
    /// The folder `.<name>.labels` beside `out`, new or with labels of the same `identity`.
    fn open(out: &Path, identity: &Value) -> anyhow::Result<Self> {
        let dir = out.with_file_name(format!(".{}.labels", folder_name(out)));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let file = dir.join("labels.json");
        match fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok()) {
            Some(found) if found != *identity => return Err(LaqError::OtherLabels { path: dir }.into()),
            Some(_) => {}
            None => write_json(&file, identity)?,
        }
        Ok(Self { dir })
    }

    fn path(&self, episode: u64) -> PathBuf {
        self.dir.join(format!("episode-{episode:06}.safetensors"))
    }

    fn write(&self, episode: u64, labels: &[(&'static str, Tensor)]) -> anyhow::Result<()> {
        let unfinished = self.dir.join("unfinished.safetensors");
        Tensor::write_safetensors(labels, &unfinished)?;
        let bytes = fs::read(&unfinished).with_context(|| format!("cannot read {}", unfinished.display()))?;
        Ok(hlrp_track::fs::write_atomic(&self.path(episode), bytes)?)
    }

    fn read(&self, episode: u64) -> anyhow::Result<Vec<(String, Tensor)>> {
        Ok(hlrp_nn::read_tensors(&self.path(episode)).map_err(LaqError::from)?.into_iter().collect())
    }
}
