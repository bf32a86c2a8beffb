//! A small network that predicts velocities from one feature vector.
//!
//! Shape suffixes: B samples, D dimensions of the flow variable, X width of the features.

use crate::VlaError;
use crate::flow::embed_time;
use hlrp_nn::{Linear, Pass, Scope};
use hlrp_schema::policy::FlowSpec;
use hlrp_torch::Autocast;
use tch::{Kind, Tensor};

/// Five linear maps, in float32 under any precision.
pub(super) struct PooledFlowHead {
    in_proj: Linear,
    time_mlp_in: Linear,
    time_mlp_out: Linear,
    fusion_in: Linear,
    fusion_out: Linear,
    width: i64,
}

impl PooledFlowHead {
    /// Registers `latent_in_proj`, `latent_time_mlp_in`, `latent_time_mlp_out`, `latent_fusion_in` and `latent_fusion_out`.
    pub(super) fn new(scope: &Scope<'_>, dim: i64, width: i64) -> Self {
        let linear = |name: &str, in_dim, out_dim| Linear::new(&scope.child(name), in_dim, out_dim, true);
        Self {
            in_proj: linear("latent_in_proj", dim, width),
            time_mlp_in: linear("latent_time_mlp_in", 2 * width, width),
            time_mlp_out: linear("latent_time_mlp_out", width, width),
            fusion_in: linear("latent_fusion_in", 2 * width, width),
            fusion_out: linear("latent_fusion_out", width, dim),
            width,
        }
    }

    /// The velocity `[B,D]` at `x_BD` and `time_B`, given features `[B,X]`.
    pub(super) fn velocity(
        &self,
        features_BX: &Tensor,
        x_BD: &Tensor,
        time_B: &Tensor,
        flow: &FlowSpec,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let _float32 = Autocast::disable(x_BD.device())?;
        let watched = |name: &'static str, tensor: Tensor| {
            pass.record(|| name.into(), &tensor);
            tensor
        };
        let projected_BX = watched("latent_in_proj", self.in_proj.forward(x_BD));
        let time_BX = watched("time_embedding", embed_time(flow, time_B, self.width));
        let timed = watched("latent_time_mlp_in.input", Tensor::cat(&[projected_BX, time_BX], 1));
        let hidden_BX = watched("latent_time_mlp_in", self.time_mlp_in.forward(&timed));
        let timed_BX = watched("latent_time_mlp_out", self.time_mlp_out.forward(&hidden_BX.silu()));
        let fused = Tensor::cat(&[features_BX.to_kind(Kind::Float), timed_BX], 1);
        let fused_BX = watched("latent_fusion_in", self.fusion_in.forward(&fused));
        Ok(watched("velocity", self.fusion_out.forward(&fused_BX.silu())))
    }
}
