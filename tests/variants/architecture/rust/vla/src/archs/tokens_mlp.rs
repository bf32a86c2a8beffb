//! A perceptron on averaged image tokens and instruction embeddings.
//!
//! The next action and the latent action are regressed, so no noise is drawn. The backbone's text decoder is part of the weights and of no
//! computation.
//!
//! Shape suffixes: B samples, N image tokens, L language tokens, D width of the text model, X width of the hidden layer, S code slots,
//! Q dimensions of a code vector, A dimensions of an action.

use super::{Architecture, HeadKind, check_cameras, frozen_in_backbone, unread_parts};
use crate::VlaError;
use crate::chunking::Guidance;
use crate::flow::FlowNoise;
use crate::loss::{SupervisedLoss, VlaLoss};
use crate::masks::by_slot;
use crate::observation::{Latents, Observation, Prediction, Targets};
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_nn::{Linear, Pass, Store};
use hlrp_schema::policy::{LatentShape, Mode, ModelSpec, ObjectiveSpec, TokensMlpSpec};
use hlrp_torch::Autocast;
use tch::{Kind, Tensor, no_grad};

/// Prefix of the backbone's parameters.
const BACKBONE: &str = "vlm";

/// The network.
pub(super) struct TokensMlpModel {
    store: Store,
    spec: ModelSpec,
    vlm: SmolVlm,
    hidden: Linear,
    latent_head: Option<(LatentShape, Linear)>,
    action_head: Option<Linear>,
}

impl TokensMlpModel {
    /// A model over the tensors of `store`, which is empty so far. `own` is the architecture's section of `spec`.
    ///
    /// # Errors
    /// A description that is not resolved, or tensors that are not exactly its own.
    pub(super) fn over(spec: &ModelSpec, own: &TokensMlpSpec, store: Store) -> Result<Self, VlaError> {
        let (root, sizes) = (store.root(), spec.backbone.sizes()?);
        let head = |name: &str, dim| Linear::new(&root.child(name), own.hidden_dim, dim, true);
        let model = Self {
            vlm: SmolVlm::new(&root.child(BACKBONE), sizes),
            hidden: Linear::new(&root.child("hidden"), 2 * sizes.text.hidden_size, own.hidden_dim, true),
            latent_head: spec.latent.map(|latent| (latent, head("latent_head", latent.code_seq_len * latent.code_dim))),
            action_head: spec.action_dim.map(|dim| head("action_head", dim)),
            spec: spec.clone(),
            store,
        };
        model.store.finish()?;
        Ok(model)
    }

    /// Hidden layer `[B,X]` float32 of an observation.
    fn hidden(&self, observation: &Observation, pass: &Pass<'_>) -> Result<Tensor, VlaError> {
        check_cameras(&self.spec, observation)?;
        let Some(images) = observation.cameras.first().and_then(Option::as_ref) else {
            return Err(VlaError::input("observation", "it has no image", "give the one camera of the model"));
        };
        let image_BND = self.vlm.embed_images(&images.pixels_BCHW, pass).to_kind(Kind::Float);
        let is_real_B1 = images.is_real_B.to_kind(Kind::Float).unsqueeze(1);
        let image_BD = image_BND.mean_dim([1].as_slice(), false, Kind::Float) * is_real_B1;

        let weight_BL1 = observation.language.is_valid_BL.to_kind(Kind::Float).unsqueeze(2);
        let sum = |x: &Tensor| x.sum_dim_intlist([1].as_slice(), false, Kind::Float);
        let text_BLD = self.vlm.embed_tokens(&observation.language.ids_BL).to_kind(Kind::Float);
        let text_BD = sum(&(text_BLD * &weight_BL1)) / sum(&weight_BL1).clamp_min(1.0);

        let _float32 = Autocast::disable(image_BD.device())?;
        Ok(self.hidden.forward(&Tensor::cat(&[image_BD, text_BD], 1)).silu())
    }

    /// Latent actions `[B,S,Q]`.
    fn latents(&self, hidden_BX: &Tensor) -> Result<Tensor, VlaError> {
        let hint = "build the model with the sizes of a teacher, or use the actions mode";
        let (latent, head) = self.latent_head.as_ref().ok_or(VlaError::NoHead { head: "latent", hint })?;
        let _float32 = Autocast::disable(hidden_BX.device())?;
        Ok(head.forward(hidden_BX).view([-1, latent.code_seq_len, latent.code_dim]))
    }

    /// The next action `[B,1,A]`.
    fn actions(&self, hidden_BX: &Tensor) -> Result<Tensor, VlaError> {
        let hint = "build the model with the size of an action, or use the latent mode";
        let head = self.action_head.as_ref().ok_or(VlaError::NoHead { head: "action", hint })?;
        let _float32 = Autocast::disable(hidden_BX.device())?;
        Ok(head.forward(hidden_BX).unsqueeze(1))
    }

    fn latent_loss(&self, hidden_BX: &Tensor, targets: &Targets) -> Result<SupervisedLoss, VlaError> {
        let predicted_BSQ = self.latents(hidden_BX)?;
        let size = predicted_BSQ.size();
        let (vectors_BSQ, is_valid_B) = targets.latent_vectors(size[1], size[2])?;
        Ok(SupervisedLoss::new(&(predicted_BSQ - vectors_BSQ).square(), &by_slot(&is_valid_B, size[1])))
    }

    fn action_loss(&self, hidden_BX: &Tensor, targets: &Targets) -> Result<SupervisedLoss, VlaError> {
        let predicted_B1A = self.actions(hidden_BX)?;
        let target = targets.action(1, predicted_B1A.size()[2])?;
        Ok(SupervisedLoss::new(&(predicted_B1A - &target.chunk_BTA).square(), &target.is_supervised_BTA()))
    }
}

impl Architecture for TokensMlpModel {
    fn store(&self) -> &Store {
        &self.store
    }

    fn backbone_prefix(&self) -> &'static str {
        BACKBONE
    }

    /// The text decoder, its final norm and the language-model head.
    fn unreachable(&self) -> Vec<String> {
        let tie_word_embeddings = self.spec.backbone.sizes.as_ref().is_some_and(|sizes| sizes.tie_word_embeddings);
        let layers = format!("{BACKBONE}.model.text_model.layers");
        unread_parts(BACKBONE, tie_word_embeddings).into_iter().chain([layers]).collect()
    }

    fn frozen(&self) -> Vec<String> {
        frozen_in_backbone(BACKBONE, &self.spec.backbone, self.unreachable())
    }

    /// A head that `mode` does not use was not built.
    fn unused_in(&self, _mode: Mode) -> Vec<String> {
        self.unreachable()
    }

    fn noise_shapes(&self, _mode: Mode, _num_samples: i64) -> Vec<(HeadKind, Vec<i64>)> {
        Vec::new()
    }

    fn loss(
        &self,
        observation: &Observation,
        targets: &Targets,
        objective: &ObjectiveSpec,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<VlaLoss, VlaError> {
        let hidden_BX = self.hidden(observation, pass)?;
        let latent = |_: &mut dyn FlowNoise| self.latent_loss(&hidden_BX, targets);
        let action = |_: &mut dyn FlowNoise| self.action_loss(&hidden_BX, targets);
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
        if guidance.is_some() {
            let hint = "use the expert architecture";
            return Err(VlaError::input("guidance", "this architecture predicts one action, not a chunk", hint));
        }
        no_grad(|| {
            let hidden_BX = self.hidden(observation, pass)?;
            let latents = |_: &mut dyn FlowNoise| Ok(Latents::Vectors(self.latents(&hidden_BX)?));
            Prediction::of(mode, noise, latents, |_| self.actions(&hidden_BX))
        })
    }
}
