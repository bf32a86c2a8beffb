//! The expert architecture: a vision-language backbone and a smaller expert that denoises actions and latent actions beside it.
//!
//! The mathematics is LeRobot's SmolVLA, its parameters bear the names of that policy's checkpoints; the latent head is our own.
//!
//! Shape suffixes: B samples, S steps of the flow variable, D numbers per step, T steps of an action chunk, A numbers of an action.

use super::config::ExpertConfig;
use super::heads::{FlowHead, TimeMlp};
use super::joint::joint_forward;
use super::prefix::{Prefix, PrefixEmbedder, pad_last};
use super::stack::{ExpertStack, PrefixMemory, Reading, SuffixReader};
use crate::{
    FlowConfig, FlowDraws, FlowPoint, Mode, Objective, Observation, Prediction, SupervisedLoss, Targets, VlaError,
    VlaLoss,
};
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_nn::{Linear, Pass, Store};
use tch::{Device, Kind, Tensor, no_grad};

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
    config: ExpertConfig,
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
    /// Action chunks, padded to the maximum width.
    Action,
    /// Latent actions.
    Latent,
}

impl ExpertModel {
    /// A model with fresh weights from the CPU's generator.
    ///
    /// # Errors
    /// A configuration that makes no model.
    pub fn new(config: &ExpertConfig, device: Device) -> Result<Self, VlaError> {
        Self::over(config, Store::new(device))
    }

    /// A model over the tensors of `store`, which is empty so far.
    ///
    /// # Errors
    /// A configuration that makes no model, or tensors that are not exactly its own.
    pub fn over(config: &ExpertConfig, store: Store) -> Result<Self, VlaError> {
        config.check()?;
        let root = store.root();
        let heads = root.child("model");
        let expert_dim = config.expert_dim();
        let text_dim = config.backbone.text.hidden_size;
        let model = Self {
            vlm: SmolVlm::new(&root.child(BACKBONE), &config.backbone),
            expert: ExpertStack::new(&root.child(EXPERT), config),
            state_proj: Linear::new(&heads.child("state_proj"), config.max_state_dim, text_dim, true),
            time_mlp: TimeMlp::new(&heads, expert_dim),
            action_head: FlowHead::new(&heads, "action", config.action.max_action_dim, expert_dim),
            latent_head: config.latent.map(|latent| FlowHead::new(&heads, "latent", latent.code_dim, expert_dim)),
            config: config.clone(),
            store,
        };
        model.store.finish()?;
        Ok(model)
    }

    /// The sizes.
    pub fn config(&self) -> &ExpertConfig {
        &self.config
    }

    /// Parameters and buffers.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Patterns of the parameters that take no part in `mode`.
    pub fn unused_in(&self, mode: Mode) -> Vec<String> {
        let mut unused = Vec::new();
        if !mode.with_actions() {
            unused.extend(ACTION_HEAD.map(str::to_owned));
        }
        if !mode.with_latents() && self.latent_head.is_some() {
            unused.extend(["in_proj", "out_proj"].map(|name| format!("{LATENT_HEAD}{name}")));
        }
        unused
    }

    /// Runs the backbone over an observation. Any number of suffixes can then be read against it.
    ///
    /// # Errors
    /// An observation that does not fit the model.
    pub fn prefill(&self, observation: &Observation, pass: &Pass<'_>) -> Result<PrefixMemory, VlaError> {
        Ok(self.expert.prefill(self.vlm.text(), &self.embed_prefix(observation, pass)?, pass))
    }

    /// Losses of a batch, the observation seen once.
    ///
    /// # Errors
    /// An observation or target that is missing or does not fit the model, or a head that the model lacks.
    pub fn loss(
        &self,
        observation: &Observation,
        targets: &Targets,
        objective: &Objective,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<VlaLoss, VlaError> {
        let memory = self.prefill(observation, pass)?;
        let latent =
            objective.mode.with_latents().then(|| self.latent_loss(&memory, targets, draws, pass)).transpose()?;
        let action =
            objective.mode.with_actions().then(|| self.action_loss(&memory, targets, draws, pass)).transpose()?;
        Ok(VlaLoss::new(latent, action, objective))
    }

    /// Loss on latent actions: pairs that are real count.
    fn latent_loss(
        &self,
        memory: &PrefixMemory,
        targets: &Targets,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<SupervisedLoss, VlaError> {
        let (_, num_steps, dim) = self.head(HeadKind::Latent)?;
        let target = targets.latent(num_steps, dim)?;
        let error_BSD = self.squared_error(memory, HeadKind::Latent, &target.codes_BSD, draws, pass)?;
        let is_valid_BS = target.is_valid_B.unsqueeze(1).expand([-1, num_steps], false);
        Ok(SupervisedLoss::new(&error_BSD, &is_valid_BS))
    }

    /// Loss on actions: real numbers of steps that exist count, padded ones do not.
    fn action_loss(
        &self,
        memory: &PrefixMemory,
        targets: &Targets,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<SupervisedLoss, VlaError> {
        let action = self.config.action;
        let target = targets.action(action.chunk_size, action.action_dim)?;
        let padded_BTA = pad_last(&target.chunk_BTA, action.max_action_dim);
        pass.record(|| "actions".into(), &padded_BTA);
        let error_BTA = self.squared_error(memory, HeadKind::Action, &padded_BTA, draws, pass)?;
        Ok(SupervisedLoss::new(&error_BTA.narrow(2, 0, action.action_dim), &target.is_pad_BT.logical_not()))
    }

    /// Squared error `[B,S,D]` of the velocity at a random point of the way to `target_BSD`.
    fn squared_error(
        &self,
        memory: &PrefixMemory,
        kind: HeadKind,
        target_BSD: &Tensor,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let device = target_BSD.device();
        let noise_BSD = draws.noise(&target_BSD.size(), device);
        let time_B = draws.time(target_BSD.size()[0], &self.config.flow, device);
        let point = FlowPoint::new(&target_BSD.to_kind(Kind::Float), &noise_BSD, &time_B);
        let reader = SuffixReader::new(memory, target_BSD.size()[1], self.expert.head_dim, Reading::Once);
        let velocity_BSD = self.velocity(&reader, kind, &point.x, &time_B, pass)?;
        pass.record(|| "velocity".into(), &velocity_BSD);
        let error_BSD = (velocity_BSD - point.velocity).square();
        pass.record(|| "losses_per_element".into(), &error_BSD);
        Ok(error_BSD)
    }

    /// What the flow of `mode` reaches from noise: actions cut to their real width, latent actions, or both, from one look at the observation.
    ///
    /// # Errors
    /// An observation that does not fit the model, or a head that it lacks.
    pub fn sample(
        &self,
        observation: &Observation,
        mode: Mode,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<Prediction, VlaError> {
        no_grad(|| {
            let memory = self.prefill(observation, pass)?;
            let latents_BSD =
                mode.with_latents().then(|| self.integrate(&memory, HeadKind::Latent, draws, pass)).transpose()?;
            let padded_BTA =
                mode.with_actions().then(|| self.integrate(&memory, HeadKind::Action, draws, pass)).transpose()?;
            let actions_BTA = padded_BTA.map(|padded_BTA| padded_BTA.narrow(2, 0, self.config.action.action_dim));
            Ok(Prediction { actions_BTA, latents_BSD })
        })
    }

    /// Denoises one flow variable over a prefix.
    fn integrate(
        &self,
        memory: &PrefixMemory,
        kind: HeadKind,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let (_, num_steps, dim) = self.head(kind)?;
        let noise_BSD = draws.noise(&[memory.num_samples(), num_steps, dim], memory.device());
        let reader = SuffixReader::new(memory, num_steps, self.expert.head_dim, Reading::Repeatedly);
        let sample_BSD = self.config.flow.integrate(&noise_BSD, |x_BSD, time_B| {
            let velocity_BSD = self.velocity(&reader, kind, x_BSD, time_B, &Pass { trace: None, ..*pass })?;
            pass.record(|| "step.time".into(), time_B);
            pass.record(|| "step.x".into(), x_BSD);
            pass.record(|| "step.velocity".into(), &velocity_BSD);
            Ok::<_, VlaError>(velocity_BSD)
        })?;
        pass.record(|| "sample".into(), &sample_BSD);
        Ok(sample_BSD)
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
        let tokens_BSX = self.time_mlp.tokens(head, x_BSD, time_B, &self.config.flow, pass)?;
        head.velocity(&self.expert.denoise(reader, &tokens_BSX, pass))
    }

    /// The velocity `[B,S,D]` at `x_BSD`, prefix and suffix in one joint pass: what [`ExpertModel::loss`] and [`ExpertModel::sample`] must
    /// agree with, for conformance tests.
    ///
    /// # Errors
    /// An observation that does not fit the model, or a head that it lacks.
    pub fn joint_velocity(
        &self,
        observation: &Observation,
        kind: HeadKind,
        x_BSD: &Tensor,
        time_B: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let head = self.head(kind)?.0;
        let prefix = self.embed_prefix(observation, pass)?;
        let tokens_BSX = self.time_mlp.tokens(head, x_BSD, time_B, &self.config.flow, pass)?;
        head.velocity(&joint_forward(&self.expert, self.vlm.text(), &prefix, &tokens_BSX, pass))
    }

    /// Constants of the flow.
    pub fn flow(&self) -> &FlowConfig {
        &self.config.flow
    }

    fn embed_prefix(&self, observation: &Observation, pass: &Pass<'_>) -> Result<Prefix, VlaError> {
        PrefixEmbedder { config: &self.config, vlm: &self.vlm, state_proj: &self.state_proj }.embed(observation, pass)
    }

    /// A head with the number of steps and the width of its flow variable.
    fn head(&self, kind: HeadKind) -> Result<(&FlowHead, i64, i64), VlaError> {
        let action = self.config.action;
        match (kind, &self.latent_head, self.config.latent) {
            (HeadKind::Action, ..) => Ok((&self.action_head, action.chunk_size, action.max_action_dim)),
            (HeadKind::Latent, Some(head), Some(latent)) => Ok((head, latent.code_seq_len, latent.code_dim)),
            (HeadKind::Latent, ..) => Err(VlaError::NoHead {
                head: "latent",
                hint: "build the model with the sizes of a teacher, or use the actions mode",
            }),
        }
    }
}
