//! One flow over a latent plan and an action chunk.
//!
//! The suffix has the steps of the actions, then the slots of the latents, at one time. Actions see the latents; latents do not see the actions,
//! so that they are the same with and without them. A sample whose latents are unknown, and a fraction `latent_dropout` of the others, trains
//! its actions without the latents: so actions can also be predicted alone, at the positions that LeRobot gives them.
//!
//! Shape suffixes: B samples, T steps of an action chunk, A its padded dimensions, S code slots, D dimensions of a code vector, N = T + S.

use super::prefix::pad_last;
use super::stack::{Reading, SuffixLayout, SuffixReader};
use super::{ExpertModel, HeadKind, PrefixMemory};
use crate::VlaError;
use crate::chunking::Guidance;
use crate::flow::{FlowNoise, FlowPoint, integrate};
use crate::loss::SupervisedLoss;
use crate::masks::{self, by_slot};
use crate::observation::{Prediction, Targets};
use hlrp_nn::Pass;
use tch::{Device, Kind, Tensor};

impl ExpertModel {
    /// Losses on latents and actions from one pass.
    pub(super) fn joint_loss(
        &self,
        memory: &PrefixMemory,
        targets: &Targets,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<[SupervisedLoss; 2], VlaError> {
        let (_, num_slots, code_dim) = self.head(HeadKind::Latent)?;
        let (vectors_BSD, is_valid_B) = targets.latent_vectors(num_slots, code_dim)?;
        let action = targets.action(self.own.chunk_size, self.action_dim)?;
        let chunk_BTA = pad_last(&action.chunk_BTA, self.own.max_action_dim);
        let (num_samples, device) = (memory.num_samples(), memory.device());
        let [latent_noise, action_noise] =
            [&vectors_BSD, &chunk_BTA].map(|target| noise.normal(&target.size(), device));
        let time_B = noise.time(num_samples, &self.spec.flow, device);
        let latent = FlowPoint::new(&vectors_BSD.to_kind(Kind::Float), &latent_noise, &time_B);
        let chunk = FlowPoint::new(&chunk_BTA.to_kind(Kind::Float), &action_noise, &time_B);
        let dropout = if pass.train { self.own.latent_dropout } else { 0.0 };
        let sees_latents_B = is_valid_B.logical_and(&noise.keep(num_samples, dropout, device));
        let layout = self.joint_layout(num_slots, Some(&sees_latents_B), device);
        let reader = SuffixReader::new(memory, &layout, self.expert.head_dim, Reading::Once);
        let [latent_BSD, action_BTA] = self.joint_velocity(&reader, [&latent.x, &chunk.x], &time_B, pass)?;
        let action_error_BTA = (action_BTA - &chunk.velocity).square().narrow(2, 0, self.action_dim);
        Ok([
            SupervisedLoss::new(&(latent_BSD - &latent.velocity).square(), &by_slot(&is_valid_B, num_slots)),
            SupervisedLoss::new(&action_error_BTA, &action.is_supervised_BTA()),
        ])
    }

    /// Latents and actions, denoised together.
    pub(super) fn joint_sample(
        &self,
        memory: &PrefixMemory,
        guidance: Option<&Guidance>,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Prediction, VlaError> {
        let [(_, num_slots, code_dim), (_, chunk_size, width)] =
            [self.head(HeadKind::Latent)?, self.head(HeadKind::Action)?];
        let (num_samples, device) = (memory.num_samples(), memory.device());
        let layout = self.joint_layout(num_slots, None, device);
        let reader = SuffixReader::new(memory, &layout, self.expert.head_dim, Reading::Repeatedly);
        let sizes = [num_slots * code_dim, chunk_size * width];
        // The integrator walks one tensor: latents and actions side by side.
        let unpack = |x: &Tensor| {
            let parts = x.split_with_sizes(sizes.as_slice(), 1);
            [parts[0].view([-1, num_slots, code_dim]), parts[1].view([-1, chunk_size, width])]
        };
        let pack =
            |[latent_BSD, chunk_BTA]: [Tensor; 2]| Tensor::cat(&[latent_BSD.flatten(1, 2), chunk_BTA.flatten(1, 2)], 1);
        let start = pack([
            noise.normal(&[num_samples, num_slots, code_dim], device),
            noise.normal(&[num_samples, chunk_size, width], device),
        ]);
        let guidance = guidance.map(|guidance| guidance.after(sizes[0]));
        let sample = integrate(&self.spec.flow, &start, guidance.as_ref(), pass, |x, time_B, pass| {
            let [latent_BSD, chunk_BTA] = unpack(x);
            Ok::<_, VlaError>(pack(self.joint_velocity(&reader, [&latent_BSD, &chunk_BTA], time_B, pass)?))
        })?;
        let [latents_BSD, chunk_BTA] = unpack(&sample);
        let actions_BTA = chunk_BTA.narrow(2, 0, self.action_dim);
        Ok(Prediction { actions_BTA: Some(actions_BTA), latents_BSD: Some(latents_BSD), codes_BS: None })
    }

    /// Velocities of latents `[B,S,D]` and actions `[B,T,A]`.
    fn joint_velocity(
        &self,
        reader: &SuffixReader<'_>,
        [latent_BSD, chunk_BTA]: [&Tensor; 2],
        time_B: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<[Tensor; 2], VlaError> {
        let [latent_head, action_head] = [self.head(HeadKind::Latent)?.0, self.head(HeadKind::Action)?.0];
        let tokens = |head, x: &Tensor| self.time_mlp.tokens(head, x, time_B, &self.spec.flow, pass);
        let tokens_BNX = Tensor::cat(&[tokens(action_head, chunk_BTA)?, tokens(latent_head, latent_BSD)?], 1);
        let out_BNX = self.expert.denoise(reader, &tokens_BNX, pass);
        let (num_steps, num_slots) = (chunk_BTA.size()[1], latent_BSD.size()[1]);
        Ok([
            latent_head.velocity(&out_BNX.narrow(1, num_steps, num_slots))?,
            action_head.velocity(&out_BNX.narrow(1, 0, num_steps))?,
        ])
    }

    /// Actions causal among themselves, latents too; the actions of a sample see its latents where `sees_latents_B` is true, or everywhere.
    fn joint_layout(&self, num_slots: i64, sees_latents_B: Option<&Tensor>, device: Device) -> SuffixLayout {
        let chunk_size = self.own.chunk_size;
        let num_samples = sees_latents_B.map_or(1, |sees| sees.size()[0]);
        let sees_latents_B11 = match sees_latents_B {
            Some(sees_latents_B) => sees_latents_B.view([-1, 1, 1]),
            None => Tensor::ones([1, 1, 1], (Kind::Bool, device)),
        };
        let causal = |num_tokens| masks::causal(num_tokens, device).unsqueeze(0).expand([num_samples, -1, -1], false);
        let of_actions =
            Tensor::cat(&[causal(chunk_size), sees_latents_B11.expand([-1, chunk_size, num_slots], false)], 2);
        let blind = Tensor::zeros([num_samples, num_slots, chunk_size], (Kind::Bool, device));
        let of_latents = Tensor::cat(&[blind, causal(num_slots)], 2);
        SuffixLayout { first_position: 0, is_seen: Tensor::cat(&[of_actions, of_latents], 1) }
    }
}
