//! The pooled architecture: the backbone's features averaged over image and instruction, and small heads on them.
//!
//! Latent actions come from flow matching over one flat vector, real actions (one step) from a linear map.
//!
//! Shape suffixes: B samples, N image tokens, L language tokens, M = N + L, D width of the text model, S code slots, Q numbers of a code
//! vector, A numbers of an action.

use super::config::PooledConfig;
use super::flow_head::PooledFlowHead;
use crate::{
    FlowDraws, FlowPoint, Mode, Objective, Observation, Prediction, SupervisedLoss, Targets, VlaError, VlaLoss,
};
use hlrp_nn::llama::causal_mask;
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_nn::{Linear, Pass, Store};
use hlrp_torch::Autocast;
use tch::{Device, Kind, Tensor, no_grad};

/// Where the backbone lies.
pub const BACKBONE: &str = "vlm";
const ACTION_HEAD: &str = "action_head";
/// Modules of the latent head.
const LATENT_HEAD: [&str; 5] =
    ["latent_in_proj", "latent_time_mlp_in", "latent_time_mlp_out", "latent_fusion_in", "latent_fusion_out"];
/// Smallest number of tokens that a mean divides by.
const MIN_TOKENS: f64 = 1e-6;

/// The network.
pub struct PooledModel {
    store: Store,
    config: PooledConfig,
    vlm: SmolVlm,
    latent_head: PooledFlowHead,
    action_head: Option<Linear>,
}

impl PooledModel {
    /// A model with fresh weights from the CPU's generator.
    ///
    /// # Errors
    /// A configuration that makes no model.
    pub fn new(config: &PooledConfig, device: Device) -> Result<Self, VlaError> {
        Self::over(config, Store::new(device))
    }

    /// A model over the tensors of `store`, which is empty so far.
    ///
    /// # Errors
    /// A configuration that makes no model, or tensors that are not exactly its own.
    pub fn over(config: &PooledConfig, store: Store) -> Result<Self, VlaError> {
        config.check()?;
        let root = store.root();
        let width = config.backbone.text.hidden_size;
        let latent_dim = config.latent.code_seq_len * config.latent.code_dim;
        let model = Self {
            vlm: SmolVlm::new(&root.child(BACKBONE), &config.backbone),
            latent_head: PooledFlowHead::new(&root, latent_dim, width),
            action_head: config.action_dim.map(|dim| Linear::new(&root.child(ACTION_HEAD), width, dim, true)),
            config: config.clone(),
            store,
        };
        model.store.finish()?;
        Ok(model)
    }

    /// The sizes.
    pub fn config(&self) -> &PooledConfig {
        &self.config
    }

    /// Parameters and buffers.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Patterns of the parameters that take no part in `mode`: among them the backbone's final norm and language-model head, which
    /// features before that norm never use.
    pub fn unused_in(&self, mode: Mode) -> Vec<String> {
        let mut unused = ["model.text_model.norm", "lm_head"].map(|part| format!("{BACKBONE}.{part}")).to_vec();
        if !mode.with_latents() {
            unused.extend(LATENT_HEAD.map(str::to_owned));
        }
        if !mode.with_actions() && self.action_head.is_some() {
            unused.push(ACTION_HEAD.to_owned());
        }
        unused
    }

    /// Features `[B,D]` float32 of an observation: the mean of the last decoder layer, before the final norm, over all real tokens.
    ///
    /// # Errors
    /// An observation that does not fit the model.
    pub fn features(&self, observation: &Observation, pass: &Pass<'_>) -> Result<Tensor, VlaError> {
        let [images] = observation.cameras.as_slice() else {
            let problem = format!("{} cameras where the model has one", observation.cameras.len());
            return Err(VlaError::input("observation", problem, format!("give the camera `{}`", self.config.camera)));
        };
        let Some(images) = images else {
            let hint = "map a camera of every source to it";
            return Err(VlaError::input(format!("camera `{}`", self.config.camera), "the data lacks it", hint));
        };
        let [height, width] = self.config.image_size;
        let size = images.pixels_BCHW.size();
        if size.len() != 4 || size[1..] != [3, height, width] {
            let problem = format!("pictures of shape {size:?} where [B, 3, {height}, {width}] is needed");
            return Err(VlaError::input(
                format!("camera `{}`", self.config.camera),
                problem,
                "prepare them for model.image_size",
            ));
        }
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
        let features_BD = self.features(observation, pass)?;
        let latent =
            objective.mode.with_latents().then(|| self.latent_loss(&features_BD, targets, draws, pass)).transpose()?;
        let action = objective.mode.with_actions().then(|| self.action_loss(&features_BD, targets)).transpose()?;
        Ok(VlaLoss::new(latent, action, objective))
    }

    fn latent_loss(
        &self,
        features_BD: &Tensor,
        targets: &Targets,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<SupervisedLoss, VlaError> {
        let target = targets.latent(self.config.latent.code_seq_len, self.config.latent.code_dim)?;
        let flat = target.codes_BSD.flatten(1, 2).to_kind(Kind::Float);
        let noise = draws.noise(&flat.size(), flat.device());
        let time_B = draws.time(flat.size()[0], &self.config.flow, flat.device());
        let point = FlowPoint::new(&flat, &noise, &time_B);
        pass.record(|| "x_t".into(), &point.x);
        pass.record(|| "u_t".into(), &point.velocity);
        let velocity = self.latent_head.velocity(features_BD, &point.x, &time_B, &self.config.flow, pass)?;
        let error = (velocity - point.velocity).square();
        Ok(SupervisedLoss::new(&error.unsqueeze(1), &target.is_valid_B.unsqueeze(1)))
    }

    fn action_loss(&self, features_BD: &Tensor, targets: &Targets) -> Result<SupervisedLoss, VlaError> {
        let predicted_BA = self.predict_actions(features_BD)?;
        let target = targets.action(1, predicted_BA.size()[1])?;
        let error_B1A = (predicted_BA.unsqueeze(1) - &target.chunk_BTA).square();
        Ok(SupervisedLoss::new(&error_B1A, &target.is_pad_BT.logical_not()))
    }

    fn predict_actions(&self, features_BD: &Tensor) -> Result<Tensor, VlaError> {
        let head = self.action_head.as_ref().ok_or(VlaError::NoHead {
            head: "action",
            hint: "build the model with the size of an action, or use the latent mode",
        })?;
        let _float32 = Autocast::disable(features_BD.device())?;
        Ok(head.forward(features_BD))
    }

    /// Latent actions that the flow reaches from noise, regressed actions, or both.
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
            let features_BD = self.features(observation, pass)?;
            let latents_BSD =
                mode.with_latents().then(|| self.sample_latents(&features_BD, draws, pass)).transpose()?;
            let actions_BA = mode.with_actions().then(|| self.predict_actions(&features_BD)).transpose()?;
            Ok(Prediction { actions_BTA: actions_BA.map(|actions_BA| actions_BA.unsqueeze(1)), latents_BSD })
        })
    }

    fn sample_latents(
        &self,
        features_BD: &Tensor,
        draws: &mut dyn FlowDraws,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let latent = self.config.latent;
        let num_samples = features_BD.size()[0];
        let noise = draws.noise(&[num_samples, latent.code_seq_len * latent.code_dim], features_BD.device());
        let quiet = Pass { trace: None, ..*pass };
        let sample = self.config.flow.integrate(&noise, |x, time_B| {
            let velocity = self.latent_head.velocity(features_BD, x, time_B, &self.config.flow, &quiet)?;
            pass.record(|| "step.time".into(), time_B);
            pass.record(|| "step.x".into(), x);
            pass.record(|| "step.velocity".into(), &velocity);
            Ok::<_, VlaError>(velocity)
        })?;
        pass.record(|| "sample".into(), &sample);
        Ok(sample.view([num_samples, latent.code_seq_len, latent.code_dim]))
    }
}
