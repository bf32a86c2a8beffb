//! Ways into the expert and out of it.
//!
//! They run in float32 under any precision: times and velocities are small differences.
//!
//! Shape suffixes: B samples, S steps of the flow variable, D dimensions per step, X width of the expert.

use crate::VlaError;
use crate::flow::embed_time;
use hlrp_nn::{Init, Linear, Pass, Scope};
use hlrp_schema::policy::FlowSpec;
use hlrp_torch::Autocast;
use tch::{Kind, Tensor};

/// Std of fresh queries.
const QUERY_STD: f64 = 0.02;

/// Projections of one kind of flow variable.
pub(crate) struct FlowHead {
    in_proj: Linear,
    out_proj: Linear,
}

impl FlowHead {
    /// Registers `<name>_in_proj` and `<name>_out_proj` for steps of `dim` dimensions.
    pub(crate) fn new(scope: &Scope<'_>, name: &str, dim: i64, expert_dim: i64) -> Self {
        Self {
            in_proj: Linear::new(&scope.child(format!("{name}_in_proj")), dim, expert_dim, true),
            out_proj: Linear::new(&scope.child(format!("{name}_out_proj")), expert_dim, dim, true),
        }
    }

    /// The expert's output `[B,S,X]` to velocities `[B,S,D]`.
    pub(crate) fn velocity(&self, out_BSX: &Tensor) -> Result<Tensor, VlaError> {
        project(&self.out_proj, out_BSX)
    }
}

/// Learned queries and the projection of what the expert answers: a head without noise.
pub(crate) struct QueryHead {
    queries_SX: Tensor,
    out_proj: Linear,
}

impl QueryHead {
    /// Registers `<name>_queries` for `num_steps` steps and `<name>_out_proj` to `out_dim` dimensions.
    pub(crate) fn new(scope: &Scope<'_>, name: &str, num_steps: i64, out_dim: i64, expert_dim: i64) -> Self {
        let shape = [num_steps, expert_dim];
        Self {
            queries_SX: scope.parameter(&format!("{name}_queries"), &shape, Init::ScaledNormal(QUERY_STD)),
            out_proj: Linear::new(&scope.child(format!("{name}_out_proj")), expert_dim, out_dim, true),
        }
    }

    /// Suffix tokens `[B,S,X]`.
    pub(crate) fn tokens(&self, num_samples: i64) -> Tensor {
        self.queries_SX.unsqueeze(0).expand([num_samples, -1, -1], false)
    }

    /// The expert's output `[B,S,X]` to `[B,S,…]`.
    pub(crate) fn answer(&self, out_BSX: &Tensor) -> Result<Tensor, VlaError> {
        project(&self.out_proj, out_BSX)
    }
}

fn project(out_proj: &Linear, out_BSX: &Tensor) -> Result<Tensor, VlaError> {
    let _float32 = Autocast::disable(out_BSX.device())?;
    Ok(out_proj.forward(&out_BSX.to_kind(Kind::Float)))
}

/// Fuses noisy steps with their time.
pub(crate) struct TimeMlp {
    mlp_in: Linear,
    mlp_out: Linear,
    expert_dim: i64,
}

impl TimeMlp {
    /// Registers `action_time_mlp_in` and `action_time_mlp_out`, which every head shares.
    pub(crate) fn new(scope: &Scope<'_>, expert_dim: i64) -> Self {
        Self {
            mlp_in: Linear::new(&scope.child("action_time_mlp_in"), 2 * expert_dim, expert_dim, true),
            mlp_out: Linear::new(&scope.child("action_time_mlp_out"), expert_dim, expert_dim, true),
            expert_dim,
        }
    }

    /// Noisy steps `[B,S,D]` at times `[B]` to suffix tokens `[B,S,X]`.
    pub(crate) fn tokens(
        &self,
        head: &FlowHead,
        x_BSD: &Tensor,
        time_B: &Tensor,
        flow: &FlowSpec,
        pass: &Pass<'_>,
    ) -> Result<Tensor, VlaError> {
        let _float32 = Autocast::disable(x_BSD.device())?;
        let steps_BSX = head.in_proj.forward(x_BSD);
        let time_BSX = embed_time(flow, time_B, self.expert_dim).unsqueeze(1).expand_as(&steps_BSX);
        let tokens_BSX = self.mlp_out.forward(&self.mlp_in.forward(&Tensor::cat(&[steps_BSX, time_BSX], 2)).silu());
        pass.record(|| "suffix_embeddings".into(), &tokens_BSX);
        Ok(tokens_BSX)
    }
}
