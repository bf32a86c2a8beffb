//! The expert architecture: a vision-language backbone and a smaller expert next to it that denoises actions and latent actions.
//!
//! The mathematics is LeRobot's SmolVLA, its parameters have the names in that policy's checkpoints; the latent head is our own.
//!
//! Shape suffixes: B samples, S steps of the flow variable, D dimensions per step, T steps of an action chunk, A dimensions of an action.

mod heads;
mod lerobot;
mod prefix;
mod stack;

pub use lerobot::Initialised;
pub use stack::PrefixMemory;

use super::{Architecture, check_cameras, frozen_in_backbone, unread_parts};
use crate::VlaError;
use crate::flow::{FlowNoise, integrate, squared_error};
use crate::loss::{SupervisedLoss, VlaLoss};
use crate::observation::{Observation, Prediction, Targets};
use heads::{FlowHead, TimeMlp};
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_nn::{Linear, Pass, Store};
use hlrp_schema::policy::{ArchSpec, ExpertSpec, Mode, ModelSpec, ObjectiveSpec};
use prefix::{Prefix, PrefixEmbedder, pad_last};
use stack::{ExpertStack, Reading, SuffixReader, last_layer_read};
use std::path::Path;
use tch::{Device, Tensor, no_grad};

/// Where LeRobot's checkpoints keep the backbone.
pub const BACKBONE: &str = "model.vlm_with_expert.vlm";
const EXPERT: &str = "model.vlm_with_expert.lm_expert";
/// Prefix of both projections of the latent head.
pub(super) const LATENT_HEAD: &str = "model.latent_";
/// Prefixes of the projections of the action head.
const ACTION_HEAD: [&str; 2] = ["model.action_in_proj", "model.action_out_proj"];

/// The network.
pub struct ExpertModel {
    store: Store,
    spec: ModelSpec,
    own: ExpertSpec,
    action_dim: i64,
    vlm: SmolVlm,
    expert: ExpertStack,
    state_proj: Linear,
    time_mlp: TimeMlp,
    action_head: FlowHead,
    latent_head: Option<FlowHead>,
}

/// Which flow variable is denoised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// Action chunks, padded to the maximum dimensions.
    Action,
    /// Latent actions.
    Latent,
}

impl ExpertModel {
    /// A model with fresh weights from the CPU's generator.
    ///
    /// # Errors
    /// A description that is not resolved, or of another architecture.
    pub fn new(spec: &ModelSpec, device: Device) -> Result<Self, VlaError> {
        match &spec.arch {
            ArchSpec::Expert(own) => Self::over(spec, own, Store::new(device)),
            other => Err(VlaError::input("arch", format!("it is {}", other.name()), "describe an expert")),
        }
    }

    /// A model over the tensors of `store`, which is empty so far. `own` is the architecture's section of `spec`.
    ///
    /// # Errors
    /// A description that is not resolved, or tensors that are not exactly its own.
    pub(super) fn over(spec: &ModelSpec, own: &ExpertSpec, store: Store) -> Result<Self, VlaError> {
        spec.check_resolved()?;
        let sizes = spec.backbone.sizes()?;
        let root = store.root();
        let heads = root.child("model");
        let expert_dim = own.dim(sizes);
        let model = Self {
            vlm: SmolVlm::new(&root.child(BACKBONE), sizes),
            expert: ExpertStack::new(&root.child(EXPERT), own, sizes),
            state_proj: Linear::new(&heads.child("state_proj"), own.max_state_dim, sizes.text.hidden_size, true),
            time_mlp: TimeMlp::new(&heads, expert_dim),
            action_head: FlowHead::new(&heads, "action", own.max_action_dim, expert_dim),
            latent_head: spec.latent.map(|latent| FlowHead::new(&heads, "latent", latent.code_dim, expert_dim)),
            action_dim: spec.action_dim.unwrap_or(1),
            spec: spec.clone(),
            own: own.clone(),
            store,
        };
        model.store.finish()?;
        Ok(model)
    }

    /// What it is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The architecture's section.
    pub fn own(&self) -> &ExpertSpec {
        &self.own
    }

    /// Runs the backbone over an observation. Any number of suffixes can then be read against it.
    ///
    /// # Errors
    /// An observation that does not fit the model.
    pub fn prefill(&self, observation: &Observation, pass: &Pass<'_>) -> Result<PrefixMemory, VlaError> {
        Ok(self.expert.prefill(self.vlm.text(), &self.embed_prefix(observation, pass)?, pass))
    }

    /// Loss on latent actions: pairs that are real count.
    fn latent_loss(
        &self,
        memory: &PrefixMemory,
        targets: &Targets,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<SupervisedLoss, VlaError> {
        let (_, num_steps, dim) = self.head(HeadKind::Latent)?;
        let target = targets.latent(num_steps, dim)?;
        let error_BSD = self.squared_error(memory, HeadKind::Latent, &target.codes_BSD, noise, pass)?;
        let is_valid_BS = target.is_valid_B.unsqueeze(1).expand([-1, num_steps], false);
        Ok(SupervisedLoss::new(&error_BSD, &is_valid_BS))
    }

    /// Loss on actions: real dimensions of steps that exist count, padded ones do not.
    fn action_loss(
        &self,
        memory: &PrefixMemory,
        targets: &Targets,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<SupervisedLoss, VlaError> {
        let target = targets.action(self.own.chunk_size, self.action_dim)?;
        let padded_BTA = pad_last(&target.chunk_BTA, self.own.max_action_dim);
        pass.record(|| "actions".into(), &padded_BTA);
        let error_BTA = self.squared_error(memory, HeadKind::Action, &padded_BTA, noise, pass)?;
        Ok(SupervisedLoss::new(&error_BTA.narrow(2, 0, self.action_dim), &target.is_pad_BT.logical_not()))
    }

    /// Squared error `[B,S,D]` of the velocity at a random point of the way to `target_BSD`.
    fn squared_error(
        &self,
        memory: &PrefixMemory,
        kind: HeadKind,
        target_BSD: &Tensor,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let error_BSD = squared_error(&self.spec.flow, target_BSD, noise, |point| {
            let reader = SuffixReader::new(memory, target_BSD.size()[1], self.expert.head_dim, Reading::Once);
            let velocity_BSD = self.velocity(&reader, kind, &point.x, &point.time_B, pass)?;
            pass.record(|| "velocity".into(), &velocity_BSD);
            Ok::<_, VlaError>(velocity_BSD)
        })?;
        pass.record(|| "losses_per_element".into(), &error_BSD);
        Ok(error_BSD)
    }

    /// Denoises one flow variable over a prefix.
    fn integrate(
        &self,
        memory: &PrefixMemory,
        kind: HeadKind,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let (_, num_steps, dim) = self.head(kind)?;
        let noise_BSD = noise.normal(&[memory.num_samples(), num_steps, dim], memory.device());
        let reader = SuffixReader::new(memory, num_steps, self.expert.head_dim, Reading::Repeatedly);
        integrate(&self.spec.flow, &noise_BSD, pass, |x_BSD, time_B, pass| {
            self.velocity(&reader, kind, x_BSD, time_B, pass)
        })
    }

    /// The velocity `[B,S,D]` at `x_BSD`.
    fn velocity(
        &self,
        reader: &SuffixReader<'_>,
        kind: HeadKind,
        x_BSD: &Tensor,
        time_B: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let head = self.head(kind)?.0;
        let tokens_BSX = self.time_mlp.tokens(head, x_BSD, time_B, &self.spec.flow, pass)?;
        head.velocity(&self.expert.denoise(reader, &tokens_BSX, pass))
    }

    fn embed_prefix(&self, observation: &Observation, pass: &Pass<'_>) -> Result<Prefix, VlaError> {
        check_cameras(&self.spec, observation)?;
        let Self { spec, own, vlm, state_proj, .. } = self;
        PrefixEmbedder { spec, own, vlm, state_proj }.embed(observation, pass)
    }

    /// A head with the number of steps and the width of its flow variable.
    fn head(&self, kind: HeadKind) -> Result<(&FlowHead, i64, i64), VlaError> {
        match (kind, &self.latent_head, self.spec.latent) {
            (HeadKind::Action, ..) => Ok((&self.action_head, self.own.chunk_size, self.own.max_action_dim)),
            (HeadKind::Latent, Some(head), Some(latent)) => Ok((head, latent.code_seq_len, latent.code_dim)),
            (HeadKind::Latent, ..) => Err(VlaError::NoHead {
                head: "latent",
                hint: "build the model with the sizes of a teacher, or use the actions mode",
            }),
        }
    }
}

impl Architecture for ExpertModel {
    fn store(&self) -> &Store {
        &self.store
    }

    fn backbone_prefix(&self) -> &'static str {
        BACKBONE
    }

    /// The language-model head, the final norm and the text layers from the last one on that the expert reads.
    fn unreachable(&self) -> Vec<String> {
        let tie_word_embeddings = self.spec.backbone.sizes.as_ref().is_some_and(|sizes| sizes.tie_word_embeddings);
        let layers = last_layer_read(&self.expert.roles)..self.expert.roles.len();
        let layers = layers.map(|layer| format!("{BACKBONE}.model.text_model.layers.{layer}"));
        unread_parts(BACKBONE, tie_word_embeddings).into_iter().chain(layers).collect()
    }

    fn frozen(&self) -> Vec<String> {
        let state_proj = (!self.own.train_state_proj).then(|| "model.state_proj".to_owned());
        frozen_in_backbone(BACKBONE, &self.spec.backbone, self.unreachable()).into_iter().chain(state_proj).collect()
    }

    fn unused_in(&self, mode: Mode) -> Vec<String> {
        let mut unused = self.unreachable();
        if !mode.with_actions() {
            unused.extend(ACTION_HEAD.map(str::to_owned));
        }
        if !mode.with_latents() && self.latent_head.is_some() {
            unused.extend(["in_proj", "out_proj"].map(|name| format!("{LATENT_HEAD}{name}")));
        }
        unused
    }

    fn noise_shapes(&self, mode: Mode, num_samples: i64) -> Vec<(HeadKind, Vec<i64>)> {
        let kinds = [(HeadKind::Latent, mode.with_latents()), (HeadKind::Action, mode.with_actions())];
        let of_head = |kind| self.head(kind).ok().map(|(_, num_steps, dim)| (kind, vec![num_samples, num_steps, dim]));
        kinds.into_iter().filter(|(_, is_used)| *is_used).filter_map(|(kind, _)| of_head(kind)).collect()
    }

    fn loss(
        &self,
        observation: &Observation,
        targets: &Targets,
        objective: &ObjectiveSpec,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<VlaLoss, VlaError> {
        let memory = self.prefill(observation, pass)?;
        let latent = |noise: &mut dyn FlowNoise| self.latent_loss(&memory, targets, noise, pass);
        let action = |noise: &mut dyn FlowNoise| self.action_loss(&memory, targets, noise, pass);
        VlaLoss::of(objective, noise, latent, action)
    }

    fn sample(
        &self,
        observation: &Observation,
        mode: Mode,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Prediction, VlaError> {
        no_grad(|| {
            let memory = self.prefill(observation, pass)?;
            let latents = |noise: &mut dyn FlowNoise| self.integrate(&memory, HeadKind::Latent, noise, pass);
            let actions = |noise: &mut dyn FlowNoise| {
                let padded_BTA = self.integrate(&memory, HeadKind::Action, noise, pass)?;
                Ok(padded_BTA.narrow(2, 0, self.action_dim))
            };
            Prediction::of(mode, noise, latents, actions)
        })
    }

    fn init_from_smolvla(&self, checkpoint: &Path) -> Result<Initialised, VlaError> {
        lerobot::init(&self.store, checkpoint)
    }
}
