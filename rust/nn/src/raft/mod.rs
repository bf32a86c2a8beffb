//! Optical flow between two frames: RAFT ([Teed & Deng 2020](https://arxiv.org/abs/2003.12039)) in the two sizes of
//! torchvision, under its names.
//!
//! Weights come from torchvision's files, converted once to safetensors:
//! `python -c "import torch, safetensors.torch as s; s.save_file(torch.load('raft_small_C_T_V2-01064c6d.pth', weights_only=True), 'raft_small.safetensors')"`.
//!
//! Shape suffixes: B samples, C channels, H×W pixels or positions of the grid at 1/8 of the pixels, N = H·W.

mod correlation;
mod encoder;
mod update;

use crate::store::Scope;
use crate::trace::Pass;
use correlation::Correlation;
use encoder::{Encoder, EncoderShape, Norm};
use tch::{Device, Kind, Tensor};
use update::{UpdateBlock, UpdateShape};

/// Pixels of one position of the grid, in each direction.
const FACTOR: i64 = 8;

/// The two networks that torchvision has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaftSize {
    /// 1 M parameters.
    Small,
    /// 5.3 M parameters.
    Large,
}

/// A RAFT network, which is only evaluated.
pub struct Raft {
    feature_encoder: Encoder,
    context_encoder: Encoder,
    update_block: UpdateBlock,
    mask_predictor: Option<update::MaskPredictor>,
    radius: i64,
    hidden_dim: i64,
}

impl Raft {
    /// Levels of the correlation pyramid.
    const NUM_LEVELS: i64 = 4;

    /// With fresh weights.
    pub fn new(scope: &Scope<'_>, size: RaftSize) -> Self {
        let (channels, out, context, radius, hidden_dim, bottleneck, norm) = match size {
            RaftSize::Small => ([32, 32, 64, 96], 128, 160, 3, 96, true, Norm::None),
            RaftSize::Large => ([64, 64, 96, 128], 256, 256, 4, 128, false, Norm::Batch),
        };
        let encoder =
            |name, norm, out| Encoder::new(&scope.child(name), EncoderShape { channels, out, bottleneck, norm });
        let correlation_dim = Self::NUM_LEVELS * (2 * radius + 1) * (2 * radius + 1);
        let shape = UpdateShape { size, correlation_dim, hidden_dim, context_dim: context - hidden_dim };
        Self {
            feature_encoder: encoder("feature_encoder", Norm::Instance, out),
            context_encoder: encoder("context_encoder", norm, context),
            update_block: UpdateBlock::new(&scope.child("update_block"), &shape),
            mask_predictor: (size == RaftSize::Large)
                .then(|| update::MaskPredictor::new(&scope.child("mask_predictor"), hidden_dim)),
            radius,
            hidden_dim,
        }
    }

    /// Flow from the first to the second images in pixels (dx, dy), `[B,2,H,W]`, after `num_updates` refinements. Images
    /// are `[B,3,H,W]` in [−1, 1], with sides that are multiples of 8 and at least 128: the coarsest
    /// correlation needs two positions.
    ///
    /// Records `feature_encoder`, `context_encoder`, and of update N `corr_features.N`, `motion_encoder.N`,
    /// `recurrent_block.N`, `delta_flow.N`; of the last one `mask_predictor.N` (large).
    pub fn forward(&self, first_BCHW: &Tensor, second_BCHW: &Tensor, num_updates: i64, pass: &Pass<'_>) -> Tensor {
        let batch = first_BCHW.size()[0];
        let features = self.feature_encoder.forward(&Tensor::cat(&[first_BCHW, second_BCHW], 0));
        pass.record(|| "feature_encoder".into(), &features);
        let correlation = Correlation::new(
            &features.narrow(0, 0, batch),
            &features.narrow(0, batch, batch),
            Self::NUM_LEVELS,
            self.radius,
        );
        let context = self.context_encoder.forward(first_BCHW);
        pass.record(|| "context_encoder".into(), &context);
        let size = context.size();
        let mut hidden = context.narrow(1, 0, self.hidden_dim).tanh();
        let context = context.narrow(1, self.hidden_dim, size[1] - self.hidden_dim).relu();
        let grid_B2HW = coordinates(size[2], size[3], first_BCHW.device()).expand([batch, -1, -1, -1], false);
        let mut flow_B2HW = grid_B2HW.zeros_like();
        for update in 0..num_updates {
            let near = correlation.look_up(&(&grid_B2HW + &flow_B2HW));
            pass.record(|| format!("corr_features.{update}"), &near);
            let motion = self.update_block.motion(&flow_B2HW, &near);
            pass.record(|| format!("motion_encoder.{update}"), &motion);
            hidden = self.update_block.recurrent(&hidden, &Tensor::cat(&[&context, &motion], 1));
            pass.record(|| format!("recurrent_block.{update}"), &hidden);
            let delta = self.update_block.delta(&hidden);
            pass.record(|| format!("delta_flow.{update}"), &delta);
            flow_B2HW = flow_B2HW.g_add(&delta);
        }
        match &self.mask_predictor {
            Some(predictor) => {
                let logits = predictor.forward(&hidden);
                pass.record(|| format!("mask_predictor.{}", num_updates - 1), &logits);
                upsample_convex(&flow_B2HW, &logits)
            }
            None => {
                flow_B2HW.upsample_bilinear2d([size[2] * FACTOR, size[3] * FACTOR], true, None, None) * FACTOR as f64
            }
        }
    }
}

/// Column and row of each position, `[1,2,H,W]`.
fn coordinates(rows: i64, columns: i64, device: Device) -> Tensor {
    let axis = |count| Tensor::arange(count, (Kind::Float, device));
    let x = axis(columns).unsqueeze(0).expand([rows, columns], false);
    let y = axis(rows).unsqueeze(1).expand([rows, columns], false);
    Tensor::stack(&[x, y], 0).unsqueeze(0)
}

/// Each pixel's flow as a convex combination of the nine positions around its own, by logits `[B,9·8·8,H,W]`.
fn upsample_convex(flow_B2HW: &Tensor, logits: &Tensor) -> Tensor {
    let (batch, channels, rows, columns) = flow_B2HW.size4().expect("a flow is [B,2,H,W]");
    let weights = logits.view([batch, 1, 9, FACTOR, FACTOR, rows, columns].as_slice()).softmax(2, Kind::Float);
    let around = (flow_B2HW * FACTOR as f64).im2col([3, 3], [1, 1], [1, 1], [1, 1]);
    let around = around.view([batch, channels, 9, 1, 1, rows, columns].as_slice());
    (weights * around).sum_dim_intlist([2].as_slice(), false, Kind::Float).permute([0, 1, 4, 2, 5, 3]).reshape([
        batch,
        channels,
        rows * FACTOR,
        columns * FACTOR,
    ])
}
