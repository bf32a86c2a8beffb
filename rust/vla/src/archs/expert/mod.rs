//! The expert architecture: a vision-language backbone and a smaller expert next to it that denoises actions and latent actions.
//!
//! The mathematics is LeRobot's SmolVLA, its parameters have the names in that policy's checkpoints; the latent heads are our own.
//!
//! Shape suffixes: B samples, S steps of the flow variable, D dimensions per step, T steps of an action chunk, A dimensions of an action.

mod heads;
mod joint;
mod lerobot;
mod prefix;
mod stack;

pub use lerobot::Initialised;
pub use stack::PrefixMemory;

use super::{Architecture, check_cameras, frozen_in_backbone, unread_parts};
use crate::VlaError;
use crate::chunking::Guidance;
use crate::flow::{FlowNoise, integrate, squared_error};
use crate::loss::{SupervisedLoss, VlaLoss};
use crate::masks::by_slot;
use crate::observation::{Latents, Observation, Prediction, Targets};
use heads::{FlowHead, QueryHead, TimeMlp};
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_nn::{Linear, Pass, Scope, Store};
use hlrp_schema::policy::{ArchSpec, ExpertSpec, LatentHead, LatentShape, Mode, ModelSpec, ObjectiveSpec};
use prefix::{Prefix, PrefixEmbedder, pad_last};
use stack::{ExpertStack, Reading, SuffixLayout, SuffixReader, last_layer_read};
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};

/// Where LeRobot's checkpoints keep the backbone.
pub const BACKBONE: &str = "model.vlm_with_expert.vlm";
const EXPERT: &str = "model.vlm_with_expert.lm_expert";
/// Prefix of the parameters of the latent head.
pub(super) const LATENT_HEAD: &str = "model.latent_";
/// Prefixes of the projections of the action head.
const ACTION_HEAD: [&str; 2] = ["model.action_in_proj", "model.action_out_proj"];

/// Where a time is fused with noisy steps: both of its layers.
const TIME_MLP: [&str; 2] = ["model.action_time_mlp_in", "model.action_time_mlp_out"];
/// What the predecessor's names begin with. Its heads are the other way round: what it calls the action's way in is the latent's.
const PREDECESSOR: [(&str, &str); 9] = [
    ("smol_model.", "model.vlm_with_expert."),
    ("vlm.", "model.vlm_with_expert.vlm."),
    ("action_in_proj.", "model.latent_in_proj."),
    ("latent_out_proj.", "model.latent_out_proj."),
    ("real_action_in_proj.", "model.action_in_proj."),
    ("action_out_proj.", "model.action_out_proj."),
    ("state_proj.", "model.state_proj."),
    ("action_time_mlp_in.", "model.action_time_mlp_in."),
    ("action_time_mlp_out.", "model.action_time_mlp_out."),
];
const NO_LATENT_HEAD: VlaError =
    VlaError::NoHead { head: "latent", hint: "build the model with the sizes of a teacher, or use the actions mode" };

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
    latent_head: Option<LatentNet>,
}

/// The head of latent actions.
enum LatentNet {
    /// For flows.
    Flow(FlowHead),
    /// For regression and classification.
    Query(QueryHead),
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
            latent_head: spec.latent.map(|latent| latent_net(&heads, own.latent_head, latent, expert_dim)),
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

    /// Loss on latent actions, in a pass of their own: pairs that are real count.
    fn latent_loss(
        &self,
        memory: &PrefixMemory,
        targets: &Targets,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<SupervisedLoss, VlaError> {
        let LatentShape { code_seq_len, code_dim, .. } = self.latent_shape()?;
        let (error_BSD, is_valid_B) = if self.own.latent_head == LatentHead::CodeCrossEntropy {
            let (codes_BS, is_valid_B) = targets.latent_codes(code_seq_len)?;
            let logits_BSK = self.ask_for_latents(memory, pass)?;
            let log_likelihood_BS1 = logits_BSK.log_softmax(-1, Kind::Float).gather(2, &codes_BS.unsqueeze(2), false);
            (-log_likelihood_BS1, is_valid_B)
        } else {
            let (vectors_BSD, is_valid_B) = targets.latent_vectors(code_seq_len, code_dim)?;
            let error_BSD = match self.own.latent_head {
                LatentHead::VectorMse => (self.ask_for_latents(memory, pass)? - vectors_BSD).square(),
                _ => self.squared_error(memory, HeadKind::Latent, &vectors_BSD, noise, pass)?,
            };
            (error_BSD, is_valid_B)
        };
        Ok(SupervisedLoss::new(&error_BSD, &by_slot(&is_valid_B, code_seq_len)))
    }

    /// What the expert answers to the learned queries: vectors `[B,S,D]`, or logits of codes `[B,S,K]`.
    fn ask_for_latents(&self, memory: &PrefixMemory, pass: &Pass<'_>) -> Result<Tensor, VlaError> {
        let Some(LatentNet::Query(head)) = &self.latent_head else { return Err(NO_LATENT_HEAD) };
        let tokens_BSX = head.tokens(memory.num_samples());
        let layout = SuffixLayout::causal(0, tokens_BSX.size()[1], memory.device());
        let reader = SuffixReader::new(memory, &layout, self.expert.head_dim, Reading::Once);
        head.answer(&self.expert.denoise(&reader, &tokens_BSX, pass))
    }

    fn predict_latents(
        &self,
        memory: &PrefixMemory,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Latents, VlaError> {
        Ok(match self.own.latent_head {
            LatentHead::CodeCrossEntropy => Latents::Codes(self.ask_for_latents(memory, pass)?.argmax(-1, false)),
            LatentHead::VectorMse => Latents::Vectors(self.ask_for_latents(memory, pass)?),
            LatentHead::VectorFlow | LatentHead::JointFlow => {
                Latents::Vectors(self.integrate(memory, HeadKind::Latent, None, noise, pass)?)
            }
        })
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
        Ok(SupervisedLoss::new(&error_BTA.narrow(2, 0, self.action_dim), &target.is_supervised_BTA()))
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
            let layout = self.layout(kind, memory.device())?;
            let reader = SuffixReader::new(memory, &layout, self.expert.head_dim, Reading::Once);
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
        guidance: Option<&Guidance>,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let (_, num_steps, dim) = self.head(kind)?;
        let noise_BSD = noise.normal(&[memory.num_samples(), num_steps, dim], memory.device());
        let layout = self.layout(kind, memory.device())?;
        let reader = SuffixReader::new(memory, &layout, self.expert.head_dim, Reading::Repeatedly);
        integrate(&self.spec.flow, &noise_BSD, guidance, pass, |x_BSD, time_B, pass| {
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
            (HeadKind::Latent, Some(LatentNet::Flow(head)), Some(latent)) => {
                Ok((head, latent.code_seq_len, latent.code_dim))
            }
            (HeadKind::Latent, ..) => Err(NO_LATENT_HEAD),
        }
    }

    /// Where the steps of one flow variable are when nothing else is denoised: latents that have a flow with actions are where they are there.
    fn layout(&self, kind: HeadKind, device: Device) -> Result<SuffixLayout, VlaError> {
        let is_after_actions = kind == HeadKind::Latent && self.own.latent_head == LatentHead::JointFlow;
        let first_position = if is_after_actions { self.own.chunk_size } else { 0 };
        Ok(SuffixLayout::causal(first_position, self.head(kind)?.1, device))
    }

    fn latent_shape(&self) -> Result<LatentShape, VlaError> {
        self.spec.latent.ok_or(NO_LATENT_HEAD)
    }

    /// Whether `mode` denoises latents and actions together.
    fn is_joint(&self, mode: Mode) -> bool {
        self.own.latent_head == LatentHead::JointFlow && mode == Mode::Multitask
    }
}

fn latent_net(scope: &Scope<'_>, head: LatentHead, latent: LatentShape, expert_dim: i64) -> LatentNet {
    let LatentShape { code_seq_len, code_dim, codebook_size } = latent;
    let out_dim = match head {
        LatentHead::VectorFlow | LatentHead::JointFlow => {
            return LatentNet::Flow(FlowHead::new(scope, "latent", code_dim, expert_dim));
        }
        LatentHead::VectorMse => code_dim,
        LatentHead::CodeCrossEntropy => codebook_size.unwrap_or(1),
    };
    LatentNet::Query(QueryHead::new(scope, "latent", code_seq_len, out_dim, expert_dim))
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
            if !self.own.latent_head.is_flow() {
                unused.extend(TIME_MLP.map(str::to_owned));
            }
        }
        if !mode.with_latents() {
            let names = match &self.latent_head {
                None => [].as_slice(),
                Some(LatentNet::Flow(_)) => &["in_proj", "out_proj"],
                Some(LatentNet::Query(_)) => &["queries", "out_proj"],
            };
            unused.extend(names.iter().map(|name| format!("{LATENT_HEAD}{name}")));
        }
        unused
    }

    fn predecessor_names(&self) -> &'static [(&'static str, &'static str)] {
        &PREDECESSOR
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
        if self.is_joint(objective.mode) {
            let [latent, action] = self.joint_loss(&memory, targets, noise, pass)?;
            return Ok(VlaLoss::new(objective, Some(latent), Some(action)));
        }
        let latent = |noise: &mut dyn FlowNoise| self.latent_loss(&memory, targets, noise, pass);
        let action = |noise: &mut dyn FlowNoise| self.action_loss(&memory, targets, noise, pass);
        VlaLoss::of(objective, noise, latent, action)
    }

    fn sample(
        &self,
        observation: &Observation,
        mode: Mode,
        guidance: Option<&Guidance>,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Prediction, VlaError> {
        no_grad(|| {
            let memory = self.prefill(observation, pass)?;
            if self.is_joint(mode) {
                return self.joint_sample(&memory, guidance, noise, pass);
            }
            let latents = |noise: &mut dyn FlowNoise| self.predict_latents(&memory, noise, pass);
            let actions = |noise: &mut dyn FlowNoise| {
                let padded_BTA = self.integrate(&memory, HeadKind::Action, guidance, noise, pass)?;
                Ok(padded_BTA.narrow(2, 0, self.action_dim))
            };
            Prediction::of(mode, noise, latents, actions)
        })
    }

    fn init_from_smolvla(&self, checkpoint: &Path) -> Result<Initialised, VlaError> {
        lerobot::init(&self.store, checkpoint)
    }
}
