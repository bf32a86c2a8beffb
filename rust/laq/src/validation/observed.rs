//! A batch of a validation as strategies see it.

use crate::data::{pair_actions, pixels_of};
use crate::model::LaqModel;
use crate::step::EvalStep;
use hlrp_data::SampleMeta;
use hlrp_train::{DeviceBatch, DeviceVectors};
use serde_json::Value;
use std::cell::OnceCell;
use tch::{Device, Kind, Tensor};

/// A batch and its evaluation.
pub(crate) struct Observed<'a> {
    pub(crate) model: &'a LaqModel,
    /// `[B,2,C,H,W]` in [0, 1].
    pub(crate) frames_BTCHW: &'a Tensor,
    pub(crate) step: &'a EvalStep,
    batch: &'a DeviceBatch,
    /// Codes of each sample; empty where the latent is continuous.
    codes: Vec<Vec<i64>>,
    actions_BA: OnceCell<Option<Tensor>>,
    states_BN: OnceCell<Option<Tensor>>,
}

impl<'a> Observed<'a> {
    pub(crate) fn new(
        model: &'a LaqModel,
        batch: &'a DeviceBatch,
        frames_BTCHW: &'a Tensor,
        step: &'a EvalStep,
    ) -> anyhow::Result<Self> {
        let codes = step.latent.ids_BS.as_ref().map(rows_of).transpose()?.unwrap_or_default();
        let (actions_BA, states_BN) = (OnceCell::new(), OnceCell::new());
        Ok(Self { model, frames_BTCHW, step, batch, codes, actions_BA, states_BN })
    }

    pub(crate) fn num_samples(&self) -> usize {
        self.batch.num_samples()
    }

    /// Where sample `index` comes from.
    pub(crate) fn meta(&self, index: usize) -> &SampleMeta {
        &self.batch.meta[index]
    }

    /// What is known of sample `index`, by the names of [`hlrp_schema::Conditions::on_samples`].
    pub(crate) fn fact(&self, index: usize, name: &str) -> Value {
        let meta = self.meta(index);
        match name {
            "source" => meta.source.as_str().into(),
            "episode" => meta.episode.into(),
            "frame" => meta.frame.into(),
            "dt_s" => meta.dt_s.into(),
            "task" if !self.batch.task[index].is_empty() => self.batch.task[index].as_str().into(),
            _ => Value::Null,
        }
    }

    /// Codes of every sample; none where the latent is continuous.
    pub(crate) fn all_codes(&self) -> &[Vec<i64>] {
        &self.codes
    }

    /// Codes of sample `index`; empty where the latent is continuous.
    pub(crate) fn codes(&self, index: usize) -> &[i64] {
        self.codes.get(index).map_or(&[], Vec::as_slice)
    }

    /// Frames `uint8 [2,C,H,W]` of sample `index`, copied to the CPU.
    pub(crate) fn pixels(&self, index: usize) -> anyhow::Result<Tensor> {
        let pixels_BTCHW = pixels_of(self.batch, &self.model.config().cameras)?;
        Ok(pixels_BTCHW.select(0, index as i64).narrow(0, 0, 2).to_device(Device::Cpu).copy())
    }

    /// Sum of the actions from frame t to frame t+k of sample `index`; none where its source has no actions.
    pub(crate) fn action(&self, index: usize) -> anyhow::Result<Option<Vec<f64>>> {
        row_of(self.actions_BA.get_or_init(|| pair_actions(self.batch)).as_ref(), self.batch.action.as_ref(), index)
    }

    /// State at frame t of sample `index`; none where its source has no states.
    pub(crate) fn state(&self, index: usize) -> anyhow::Result<Option<Vec<f64>>> {
        let states = || {
            let values_BTN = &self.batch.state.as_ref()?.values_BTN;
            (values_BTN.size()[1] > 0).then(|| values_BTN.select(1, 0).to_device(Device::Cpu))
        };
        row_of(self.states_BN.get_or_init(states).as_ref(), self.batch.state.as_ref(), index)
    }
}

/// The values of sample `index` in the dimensions that its source has; none where it has none.
fn row_of(rows_BN: Option<&Tensor>, vectors: Option<&DeviceVectors>, index: usize) -> anyhow::Result<Option<Vec<f64>>> {
    let row = |(rows_BN, vectors): (&Tensor, &DeviceVectors)| -> anyhow::Result<Vec<f64>> {
        let [row_N, is_pad_N] = [rows_BN, &vectors.is_pad_dim_BN].map(|x| x.select(0, index as i64));
        let is_real_N = is_pad_N.to_device(Device::Cpu).logical_not();
        Ok(Vec::<f64>::try_from(row_N.to_kind(Kind::Double).masked_select(&is_real_N))?)
    };
    let values_N = rows_BN.zip(vectors).map(row).transpose()?;
    Ok(values_N.filter(|values_N| !values_N.is_empty()))
}

fn rows_of(ids_BS: &Tensor) -> anyhow::Result<Vec<Vec<i64>>> {
    let num_slots = usize::try_from(ids_BS.size()[1])?;
    let ids = Vec::<i64>::try_from(ids_BS.to_device(Device::Cpu).to_kind(Kind::Int64).reshape([-1]))?;
    Ok(ids.chunks(num_slots).map(<[i64]>::to_vec).collect())
}
