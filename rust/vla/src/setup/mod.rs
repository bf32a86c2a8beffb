//! From a configuration to a policy under training and its data.

mod backbone;
mod mistake;
mod policy;
mod request;
mod scaling;

pub use backbone::preflight;
pub(crate) use policy::Plan;
pub(crate) use request::Requests;

use crate::{FreezeConfig, Mode, Objective, Processor, Teacher, TeacherWeights, VlaModel, VlaTask, freeze};
use hlrp_data::lerobot::Info;
use hlrp_data::{CacheProgress, FrameSize, Mixture};
use hlrp_schema::{DataConfig, VlaConfig};
use hlrp_train::LoaderData;
use mistake::{as_mistake, mistake, mistake_in};
use std::{collections::BTreeMap, sync::Arc};
use tch::Device;

/// Builds the task and the data of a run; nothing is written. With `overwrites_weights` a checkpoint will replace the model's weights, so
/// none are read for it.
///
/// # Errors
/// [`hlrp_config::Problem`] for values that contradict the data, the backbone or the teacher; otherwise whatever cannot be read.
pub fn prepare(
    config: &VlaConfig,
    device: Device,
    overwrites_weights: bool,
    progress: &CacheProgress<'_>,
) -> anyhow::Result<(VlaTask, LoaderData)> {
    let teacher = teacher(config, device)?;
    let pair = teacher.as_ref().map(|teacher| &teacher.identity().pair);
    let infos = infos(config)?;
    let rates: Vec<f64> = infos.values().map(|info| info.fps).collect();
    let requests = Requests::new(config, pair, &rates)?;
    let frame_size = frame_size(config, &infos)?;
    let open = |request| {
        let data = DataConfig { request, ..config.data.clone() };
        Mixture::open(&data, frame_size, progress).map(Arc::new)
    };
    let train = open(requests.train.clone())?;
    let validation = open(requests.validation.clone())?;
    check_cameras(config, &train.layout().roles)?;

    let tokenizer_folder = backbone::tokenizer_folder(&config.model)?;
    let plan = Plan::new(config, train.layout(), teacher.as_ref(), &tokenizer_folder).map_err(as_mistake)?;
    let processor = Processor::new(&plan.processor, &tokenizer_folder)?;
    let model = VlaModel::new(&plan.model, device).map_err(as_mistake)?;
    if !overwrites_weights {
        backbone::load_weights(&config.model, &model)?;
    }
    let mode = objective(config).mode;
    let mut frozen = freeze_config(config).patterns_of(&plan.model);
    frozen.extend(model.unused_in(mode));
    freeze(model.store(), &frozen)?;

    let data = LoaderData::new(train, validation, config.seed)?;
    let task =
        VlaTask::new(model, plan, objective(config), processor, teacher, requests.moments, tokenizer_folder, config);
    Ok((task, data))
}

/// The teacher, if the mode needs one, with the sizes that the configuration confirms.
fn teacher(config: &VlaConfig, device: Device) -> anyhow::Result<Option<Teacher>> {
    let options = &config.model.laq;
    let Some(path) = options.checkpoint.as_ref().filter(|_| config.model.mode.with_latents()) else {
        return Ok(None);
    };
    let weights = match options.weights {
        hlrp_schema::TeacherWeights::Trained => TeacherWeights::Trained,
        hlrp_schema::TeacherWeights::Random => TeacherWeights::Random { seed: config.seed },
    };
    let loaded = Teacher::load(path, weights, device);
    let teacher = loaded.map_err(|error| mistake_in("model.laq.checkpoint", &error))?;
    let identity = teacher.identity();
    let confirmed = [
        ("codebook_size", options.codebook_size, identity.codebook_size),
        ("code_seq_len", options.code_seq_len, identity.code_seq_len),
        ("code_dim", options.code_dim, identity.code_dim),
    ];
    for (key, configured, own) in confirmed {
        if configured.is_some_and(|value| value != own) {
            let problem = format!("the teacher {} has {own}", path.display());
            let hint = "set it to null to take the teacher's, or choose the teacher that it was meant for";
            return Err(mistake(&format!("model.laq.{key}"), problem, hint));
        }
    }
    Ok(Some(teacher))
}

/// What the datasets say about themselves, by the name of the source.
fn infos(config: &VlaConfig) -> anyhow::Result<BTreeMap<&str, Info>> {
    config.data.sources.iter().map(|(name, source)| Ok((name.as_str(), Info::read(&source.root)?))).collect()
}

/// The size in which the loader delivers frames: the configured one, or that of every camera in use.
fn frame_size(config: &VlaConfig, infos: &BTreeMap<&str, Info>) -> anyhow::Result<FrameSize> {
    if let Some([height, width]) = config.model.frame_size {
        return Ok(FrameSize { height, width });
    }
    let mut found: Option<(String, FrameSize)> = None;
    for (name, source) in &config.data.sources {
        for key in source.cameras.values() {
            // A camera that is not there is refused when the dataset is opened.
            let Some(size) = infos[name.as_str()].features.get(key).and_then(|feature| feature.frame_size()) else {
                continue;
            };
            let place = format!("{name}/{key}");
            match &found {
                Some((other, known)) if *known != size => {
                    let problem = format!(
                        "`{other}` records {}x{} pixels, `{place}` {}x{}",
                        known.height, known.width, size.height, size.width
                    );
                    let hint = "give the height and width in which all frames are delivered";
                    return Err(mistake("model.frame_size", problem, hint));
                }
                _ => found = Some((place, size)),
            }
        }
    }
    let [height, width] = config.model.image_size;
    let model_size = || FrameSize { height: height.unsigned_abs() as usize, width: width.unsigned_abs() as usize };
    Ok(found.map_or_else(model_size, |(_, size)| size))
}

/// Every camera of the policy and of the teacher is a role of the data.
fn check_cameras(config: &VlaConfig, roles: &[String]) -> anyhow::Result<()> {
    let model = &config.model;
    let hint = "map a camera of every source to each role: data.sources.<name>.cameras.<role>=<feature key>";
    let lacking: Vec<&String> = model.cameras.iter().filter(|role| !roles.contains(role)).collect();
    if lacking.len() > model.num_empty_cameras {
        let problem = format!(
            "the data has the roles {roles:?} and lacks {lacking:?}; model.num_empty_cameras allows {}",
            model.num_empty_cameras
        );
        return Err(mistake("model.cameras", problem, hint));
    }
    if model.mode.with_latents() && !roles.contains(&model.laq.camera) {
        let problem = format!("the data has the roles {roles:?}, the teacher is to see `{}`", model.laq.camera);
        return Err(mistake("model.laq.camera", problem, hint));
    }
    Ok(())
}

fn objective(config: &VlaConfig) -> Objective {
    Objective {
        mode: match config.model.mode {
            hlrp_schema::VlaMode::Latent => Mode::Latent,
            hlrp_schema::VlaMode::Actions => Mode::Actions,
            hlrp_schema::VlaMode::Multitask => Mode::Multitask,
        },
        latent_weight: config.model.latent_loss_weight,
        action_weight: config.model.action_loss_weight,
    }
}

fn freeze_config(config: &VlaConfig) -> FreezeConfig {
    let hlrp_schema::FreezeOptions { backbone, vision_encoder, state_proj } = config.model.freeze;
    FreezeConfig { backbone, vision_encoder, state_proj }
}
