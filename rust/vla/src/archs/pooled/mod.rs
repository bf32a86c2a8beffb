//! The pooled architecture: the backbone's features averaged over image and instruction, and small heads on them.
//!
//! Latent actions come from flow matching over one flat vector, real actions (one step) from a linear map.
//!
//! Shape suffixes: B samples, N image tokens, L language tokens, M = N + L, D width of the text model, S code slots, Q dimensions of a
//! code vector, A dimensions of an action.

mod flow_head;

use super::{Architecture, HeadKind, check_cameras, frozen_in_backbone, unread_parts};
use crate::VlaError;
use crate::chunking::Guidance;
use crate::flow::{FlowNoise, integrate, squared_error};
use crate::loss::{SupervisedLoss, VlaLoss};
use crate::masks::by_slot;
use crate::observation::{Latents, Observation, Prediction, Targets};
use flow_head::PooledFlowHead;
use hlrp_nn::llama::causal_mask;
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_nn::{Linear, Pass, Store};
use hlrp_schema::policy::{LatentShape, Mode, ModelSpec, ObjectiveSpec};
use hlrp_torch::Autocast;
use tch::{Device, Kind, Tensor, no_grad};

/// Prefix of the backbone's parameters.
const BACKBONE: &str = "vlm";
const ACTION_HEAD: &str = "action_head";
/// Modules of the latent head.
const LATENT_HEAD: [&str; 5] =
    ["latent_in_proj", "latent_time_mlp_in", "latent_time_mlp_out", "latent_fusion_in", "latent_fusion_out"];
/// Smallest number of tokens that a mean divides by.
const MIN_TOKENS: f64 = 1e-6;

/// The network.
pub struct PooledModel {
    store: Store,
    spec: ModelSpec,
    latent: LatentShape,
    vlm: SmolVlm,
    latent_head: PooledFlowHead,
    action_head: Option<Linear>,
}

impl PooledModel {
    /// A model with fresh weights from the CPU's generator.
    ///
    /// # Errors
    /// A description that is not resolved.
    pub fn new(spec: &ModelSpec, device: Device) -> Result<Self, VlaError> {
        Self::over(spec, Store::new(device))
    }

    /// A model over the tensors of `store`, which is empty so far.
    ///
    /// # Errors
    /// A description that is not resolved, or tensors that are not exactly its own.
    pub(super) fn over(spec: &ModelSpec, store: Store) -> Result<Self, VlaError> {
        spec.check_resolved()?;
        let (root, sizes) = (store.root(), spec.backbone.sizes()?);
        let width = sizes.text.hidden_size;
        let latent = spec.latent.unwrap_or(LatentShape { code_seq_len: 1, code_dim: 1, codebook_size: None });
        let model = Self {
            vlm: SmolVlm::new(&root.child(BACKBONE), sizes),
            latent_head: PooledFlowHead::new(&root, latent.code_seq_len * latent.code_dim, width),
            action_head: spec.action_dim.map(|dim| Linear::new(&root.child(ACTION_HEAD), width, dim, true)),
            latent,
            spec: spec.clone(),
            store,
        };
        model.store.finish()?;
        Ok(model)
    }

    /// What it is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Features `[B,D]` float32 of an observation: the mean of the last decoder layer, before the final norm, over all real tokens.
    ///
    /// # Errors
    /// An observation that does not fit the model.
    pub fn features(&self, observation: &Observation, pass: &Pass<'_>) -> Result<Tensor, VlaError> {
        check_cameras(&self.spec, observation)?;
        let Some(images) = observation.cameras.first().and_then(Option::as_ref) else {
            return Err(VlaError::input("observation", "it has no image", "give the one camera of the model"));
        };
        let language = &observation.language;
        let image_BND = self.vlm.embed_images(&images.pixels_BCHW, pass);
        pass.record(|| "image_tokens".into(), &image_BND);
        let text_BLD = self.vlm.embed_tokens(&language.ids_BL);
        pass.record(|| "text_embeddings".into(), &text_BLD);
        let image_valid_BN = images.is_real_B.unsqueeze(1).expand([-1, image_BND.size()[1]], false);
        let is_valid_BM = Tensor::cat(&[&image_valid_BN, &language.is_valid_BL], 1);
        let tokens_BMD = Tensor::cat(&[&image_BND, &text_BLD.to_kind(image_BND.kind())], 1);
        let positions_1M = Tensor::arange(tokens_BMD.size()[1], (Kind::Int64, tokens_BMD.device())).unsqueeze(0);
        let hidden_BMD = self.vlm.text().forward(&tokens_BMD, &positions_1M, &causal_mask(&is_valid_BM), pass);
        let weight_BM1 = is_valid_BM.to_kind(Kind::Float).unsqueeze(2);
        let sum_BD =
            (hidden_BMD.to_kind(Kind::Float) * &weight_BM1).sum_dim_intlist([1].as_slice(), false, Kind::Float);
        let features_BD = sum_BD / weight_BM1.sum_dim_intlist([1].as_slice(), false, Kind::Float).clamp_min(MIN_TOKENS);
        pass.record(|| "pooled".into(), &features_BD);
        Ok(features_BD)
    }

    fn latent_loss(
        &self,
        features_BD: &Tensor,
        targets: &Targets,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<SupervisedLoss, VlaError> {
        let (vectors_BSD, is_valid_B) = targets.latent_vectors(self.latent.code_seq_len, self.latent.code_dim)?;
        let flat = vectors_BSD.flatten(1, 2).to_kind(Kind::Float);
        let error = squared_error(&self.spec.flow, &flat, noise, |point| {
            pass.record(|| "x_t".into(), &point.x);
            pass.record(|| "u_t".into(), &point.velocity);
            self.latent_head.velocity(features_BD, &point.x, &point.time_B, &self.spec.flow, pass)
        })?;
        Ok(SupervisedLoss::new(&error.unsqueeze(1), &by_slot(&is_valid_B, 1)))
    }

    fn action_loss(&self, features_BD: &Tensor, targets: &Targets) -> Result<SupervisedLoss, VlaError> {
        let predicted_BA = self.predict_actions(features_BD)?;
        let target = targets.action(1, predicted_BA.size()[1])?;
        let error_B1A = (predicted_BA.unsqueeze(1) - &target.chunk_BTA).square();
        Ok(SupervisedLoss::new(&error_B1A, &target.is_supervised_BTA()))
    }

    fn predict_actions(&self, features_BD: &Tensor) -> Result<Tensor, VlaError> {
        let head = self.action_head.as_ref().ok_or(VlaError::NoHead {
            head: "action",
            hint: "build the model with the size of an action, or use the latent mode",
        })?;
        let _float32 = Autocast::disable(features_BD.device())?;
        Ok(head.forward(features_BD))
    }

    fn sample_latents(
        &self,
        features_BD: &Tensor,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let LatentShape { code_seq_len, code_dim, .. } = self.latent;
        let num_samples = features_BD.size()[0];
        let noise = noise.normal(&[num_samples, code_seq_len * code_dim], features_BD.device());
        let flow = &self.spec.flow;
        let sample = integrate(flow, &noise, None, pass, |x, time_B, pass| {
            self.latent_head.velocity(features_BD, x, time_B, flow, pass)
        })?;
        Ok(sample.view([num_samples, code_seq_len, code_dim]))
    }
}

impl Architecture for PooledModel {
    fn store(&self) -> &Store {
        &self.store
    }

    fn backbone_prefix(&self) -> &'static str {
        BACKBONE
    }

    fn unreachable(&self) -> Vec<String> {
        unread_parts(BACKBONE, self.spec.backbone.sizes.as_ref().is_some_and(|sizes| sizes.tie_word_embeddings))
    }

    fn frozen(&self) -> Vec<String> {
        frozen_in_backbone(BACKBONE, &self.spec.backbone, self.unreachable())
    }

    fn unused_in(&self, mode: Mode) -> Vec<String> {
        let mut unused = self.unreachable();
        if !mode.with_latents() {
            unused.extend(LATENT_HEAD.map(str::to_owned));
        }
        if !mode.with_actions() && self.action_head.is_some() {
            unused.push(ACTION_HEAD.to_owned());
        }
        unused
    }

    fn noise_shapes(&self, mode: Mode, num_samples: i64) -> Vec<(HeadKind, Vec<i64>)> {
        let shape = || (HeadKind::Latent, vec![num_samples, self.latent.code_seq_len, self.latent.code_dim]);
        mode.with_latents().then(shape).into_iter().collect()
    }

    fn loss(
        &self,
        observation: &Observation,
        targets: &Targets,
        objective: &ObjectiveSpec,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<VlaLoss, VlaError> {
        let features_BD = self.features(observation, pass)?;
        let latent = |noise: &mut dyn FlowNoise| self.latent_loss(&features_BD, targets, noise, pass);
        VlaLoss::of(objective, noise, latent, |_| self.action_loss(&features_BD, targets))
    }

    fn sample(
        &self,
        observation: &Observation,
        mode: Mode,
        guidance: Option<&Guidance>,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Prediction, VlaError> {
        if guidance.is_some() {
            let hint = "use the expert architecture";
            return Err(VlaError::input("guidance", "this architecture predicts one action, not a chunk", hint));
        }
        no_grad(|| {
            let features_BD = self.features(observation, pass)?;
            let latents =
                |noise: &mut dyn FlowNoise| self.sample_latents(&features_BD, noise, pass).map(Latents::Vectors);
            Prediction::of(mode, noise, latents, |_| Ok(self.predict_actions(&features_BD)?.unsqueeze(1)))
        })
    }
}
