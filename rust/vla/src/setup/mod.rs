//! From a configuration to a policy under training and its data.

mod backbone;
mod facts;
mod request;

pub use backbone::preflight;

use crate::archs::VlaModel;
use crate::labels::{LabelColumns, Labelled, Labelling};
use crate::policy::Policy;
use crate::processor::Processor;
use crate::task::VlaTask;
use crate::teacher::{Teacher, TeacherInit};
use crate::{HINTS, freeze::freeze, validation};
use hlrp_config::Problem;
use hlrp_data::formats::FeatureKind;
use hlrp_data::hub::locate;
use hlrp_data::{CacheProgress, Description, FrameSize, Mixture};
use hlrp_schema::policy::{DataFacts, PolicySpec, TeacherIdentity, TeacherWeights};
use hlrp_schema::{DataConfig, VlaConfig};
use hlrp_train::program::Setup;
use hlrp_train::{Augmentation, LoaderData, disk_rules};
use request::Requests;
use std::{collections::BTreeMap, error::Error, path::PathBuf, sync::Arc};
use tch::Device;

/// Builds the task and the data of a run; nothing is written. Weights that a checkpoint will replace are not read. A resumed run keeps its
/// held-out episodes and the statistics that normalise its inputs.
///
/// # Errors
/// [`Problem`] for values that contradict the data, the backbone or the teacher; otherwise whatever cannot be read.
pub fn prepare(
    config: &VlaConfig,
    setup: &Setup,
    progress: &CacheProgress<'_>,
) -> anyhow::Result<(VlaTask, LoaderData)> {
    let device = setup.device;
    let datasets = hlrp_data::describe_sources(&config.data.sources, &config.data.cache.dir)?;
    let teacher = teacher(config, &datasets, device)?;
    let identity = teacher.as_ref().map(Labelling::identity);
    let rates: Vec<f64> = datasets.values().map(|dataset| dataset.fps).collect();
    let label_keys = match &teacher {
        Some(Labelling::Columns(columns)) => columns.keys(),
        _ => Vec::new(),
    };
    let requests = Requests::new(config, identity.map(|identity| &identity.pair), label_keys, &rates)?;
    let frame_size = frame_size(config, &datasets)?;
    let data = DataConfig { request: requests.train.clone(), ..config.data.clone() };
    let mut opened = Mixture::open(&data, frame_size, &disk_rules(&config.cluster, &config.logging), progress)?;
    if let Some(resumed) = &setup.resumed {
        opened = opened.with_held_out(&resumed.held_out())?;
    }
    let train = Arc::new(opened.with_request(&requests.train, &requests.anchor_images, &requests.labels)?);
    let of_validation = &requests.validation_labels;
    let validation = Arc::new(opened.with_request(&requests.validation, &requests.anchor_images, of_validation)?);
    check_cameras(config, &train.layout().roles)?;
    if !config.policy.objective.mode.with_latents() {
        train.require_actions()?;
    }

    let vectors = facts::Vectors::of(&train)?;
    let data = vectors.facts(setup.resumed.as_ref());
    let (spec, tokenizer_folder) = complete(&config.policy, &data, identity)?;
    vectors.warn_of_far_values(&spec.processor);
    let processor = Processor::new(&spec.model, &spec.processor, &tokenizer_folder)?;
    let model = VlaModel::new(&spec.model, device)?;
    if !setup.overwrites_weights {
        backbone::load_weights(&config.policy, &model)?;
    }
    let mut frozen = model.frozen();
    frozen.extend(model.unused_in(spec.objective.mode));
    freeze(model.store(), &frozen)?;

    let data = LoaderData::new(train, validation, config.seed)?;
    let task = VlaTask {
        policy: Policy { spec, model, processor, teacher },
        world: setup.world.clone(),
        augmentation: Augmentation::new(&config.training.augmentation, &setup.world),
        indices: requests.indices,
        tokenizer_folder,
        experiment: config.experiment.name.clone(),
        validation: validation::Options::new(&config.validation),
    };
    Ok((task, data))
}

/// The whole description of a policy, filled from the data, the backbone's folder and the teacher; and the folder with its tokenizer.
///
/// # Errors
/// A folder that cannot be read, or a value that contradicts what fills it.
pub(crate) fn complete(
    policy: &PolicySpec,
    data: &DataFacts,
    teacher: Option<&TeacherIdentity>,
) -> anyhow::Result<(PolicySpec, PathBuf)> {
    let tokenizer_folder = backbone::tokenizer_folder(policy)?;
    let facts = backbone::facts(policy, &tokenizer_folder)?;
    let spec = policy.clone().resolve(data, &facts, teacher).map_err(|problem| problem.inside("policy"))?;
    Ok((spec, tokenizer_folder))
}

/// The latent action model that a configuration names, if its mode needs labels. Datasets are read only where they have the labels.
///
/// # Errors
/// A checkpoint or labels that cannot be read.
pub(crate) fn teacher_identity(config: &VlaConfig) -> anyhow::Result<Option<TeacherIdentity>> {
    let PolicySpec { teacher: spec, objective, .. } = &config.policy;
    let datasets = if spec.label_prefix.is_some() && objective.mode.with_latents() {
        hlrp_data::describe_sources(&config.data.sources, &config.data.cache.dir)?
    } else {
        BTreeMap::new()
    };
    Ok(teacher(config, &datasets, Device::Cpu)?.map(|teacher| teacher.identity().clone()))
}

/// The value of `key` names a file or folder that cannot be used, as `error` says.
fn problem_at(key: &str, error: &(dyn Error + 'static)) -> Problem {
    let (message, hints) = hlrp_track::console::message_and_hints(error, HINTS);
    Problem::new(key, message, hints.into_iter().next().unwrap_or_else(|| "give another path".to_owned()))
}

/// Who labels, if the mode needs labels.
fn teacher(
    config: &VlaConfig,
    datasets: &BTreeMap<String, Description>,
    device: Device,
) -> anyhow::Result<Option<Labelling>> {
    let PolicySpec { teacher, objective, .. } = &config.policy;
    let path = match (&teacher.label_prefix, &teacher.checkpoint) {
        _ if !objective.mode.with_latents() => return Ok(None),
        (Some(prefix), _) => {
            let labelled = config.data.sources.iter().map(|(name, source)| {
                Ok(Labelled {
                    key: format!("data.sources.{name}.{}", source.place_key()),
                    root: locate(name, source)?.root,
                    description: &datasets[name],
                })
            });
            let columns = LabelColumns::open(
                &labelled.collect::<Result<Vec<_>, Problem>>()?,
                prefix,
                teacher.label_vectors,
                device,
            )?;
            return Ok(Some(Labelling::Columns(columns)));
        }
        (None, Some(path)) => path,
        (None, None) => return Ok(None),
    };
    let weights = match teacher.weights {
        TeacherWeights::Trained => TeacherInit::Trained,
        TeacherWeights::Random => TeacherInit::Random { seed: config.seed },
    };
    // A model is drawn before its weights are read: the policy's own first weights do not depend on who labels.
    let loaded = hlrp_torch::rng::seeded(config.seed, || Teacher::load(path, weights, device))?;
    let teacher = loaded.map_err(|error| problem_at("policy.teacher.checkpoint", &error))?;
    Ok(Some(Labelling::Online(Box::new(teacher))))
}

/// The size in which the loader delivers frames: the configured one, or that of every camera in use.
fn frame_size(config: &VlaConfig, datasets: &BTreeMap<String, Description>) -> anyhow::Result<FrameSize> {
    if let Some([height, width]) = config.policy.processor.frame_size {
        return Ok(FrameSize { height, width });
    }
    let mut found: Option<(String, FrameSize)> = None;
    for (name, source) in &config.data.sources {
        for key in source.cameras.values() {
            // A missing camera is refused when the dataset is opened.
            let camera = datasets[name].feature(key, FeatureKind::Camera);
            let Some(size) = camera.and_then(|camera| camera.frame_size()) else {
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
                    return Err(Problem::new("policy.processor.frame_size", problem, hint).into());
                }
                _ => found = Some((place, size)),
            }
        }
    }
    let [height, width] = config.policy.model.image_size();
    let model_size = || FrameSize { height: height.unsigned_abs() as usize, width: width.unsigned_abs() as usize };
    Ok(found.map_or_else(model_size, |(_, size)| size))
}

/// Every camera of the policy and of the teacher is a role of the data.
fn check_cameras(config: &VlaConfig, roles: &[String]) -> Result<(), Problem> {
    let PolicySpec { model, teacher, objective, .. } = &config.policy;
    let hint = "map a camera of every source to each role: data.sources.<name>.cameras.<role>=<feature key>";
    let absent: Vec<&String> = model.cameras.iter().filter(|role| !roles.contains(role)).collect();
    if absent.len() > model.empty_cameras {
        let problem = format!(
            "the data has the roles {roles:?} and lacks {absent:?}; policy.model.empty_cameras allows {}",
            model.empty_cameras
        );
        return Err(Problem::new("policy.model.cameras", problem, hint));
    }
    if objective.mode.with_latents() && teacher.label_prefix.is_none() && !roles.contains(&teacher.camera) {
        let problem = format!("the data has the roles {roles:?}, but the teacher needs `{}`", teacher.camera);
        return Err(Problem::new("policy.teacher.camera", problem, hint));
    }
    Ok(())
}
