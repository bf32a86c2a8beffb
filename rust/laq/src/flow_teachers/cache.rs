//! Flows of a teacher on the disk: each pair's is computed once, and not at every epoch.
//!
//! A flow is that of the teacher to the last bit where what the teacher says of a pair does not depend on the other pairs that it sees, as on a
//! CPU.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels of all views.

use crate::dims::Dims;
use crate::model::LaqModel;
use hlrp_data::{Mixture, PairCache, PairCacheSpec, SampleMeta};
use hlrp_schema::{FlowDecoderConfig, LaqConfig};
use hlrp_track::fs::FileDigest;
use hlrp_train::{DeviceBatch, disk_rules};
use serde_json::{Value, json};
use tch::{Device, Tensor};

/// Bytes of a GB.
const GB: f64 = 1e9;

/// The cache of a run.
pub struct FlowCache {
    pairs: PairCache,
    /// `[2,H,W]`.
    shape: [i64; 3],
}

impl FlowCache {
    /// That of a run of `config` on `mixture`, whose teacher computes on `device`; none where flows are not kept.
    ///
    /// # Errors
    /// A file that cannot be written, is damaged or is of another dataset, teacher or size; or a disk without room.
    pub fn open(config: &LaqConfig, mixture: &Mixture, device: Device) -> anyhow::Result<Option<Self>> {
        let decoders = &config.model.decoders;
        let Some((cache, flow)) = decoders.flow_cache().zip(decoders.flow.as_ref()) else { return Ok(None) };
        let dims = Dims::new(&config.model);
        let shape = [2, dims.image_size, dims.image_size * dims.num_views];
        let spec = PairCacheSpec {
            dir: &cache.dir,
            max_bytes: (cache.max_gb * GB) as u64,
            cameras: &config.model.cameras,
            computation: identity(flow, device)?,
            num_values: usize::try_from(shape.iter().product::<i64>())?,
        };
        let disk = disk_rules(&config.cluster, &config.logging);
        Ok(Some(Self { pairs: PairCache::open(mixture, &config.data.sources, &spec, &disk)?, shape }))
    }

    /// Flows `[B,2,H,W]` in pixels of the pairs `frames_BTCHW`, which come from `meta`; the teacher of `model` computes those that are missing.
    /// None where it has no teacher.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(crate) fn flow(
        &self,
        model: &LaqModel,
        meta: &[SampleMeta],
        frames_BTCHW: &Tensor,
    ) -> anyhow::Result<Option<Tensor>> {
        let mut flows = meta.iter().map(|meta| self.pairs.read(meta)).collect::<Result<Vec<_>, _>>()?;
        let missing: Vec<i64> =
            (0_i64..).zip(&flows).filter(|(_, flow)| flow.is_none()).map(|(index, _)| index).collect();
        let device = frames_BTCHW.device();
        if !missing.is_empty() {
            let frames_BTCHW = frames_BTCHW.index_select(0, &Tensor::from_slice(&missing).to_device(device));
            let Some(flow_B2HW) = model.decoders.teacher_flow(&frames_BTCHW) else { return Ok(None) };
            for (row, index) in (0_i64..).zip(missing) {
                let flow = Vec::<f32>::try_from(flow_B2HW.get(row).to_device(Device::Cpu).reshape([-1]))?;
                let index = usize::try_from(index)?;
                self.pairs.write(&meta[index], &flow)?;
                flows[index] = Some(flow);
            }
        }
        let values: Vec<f32> = flows.into_iter().flatten().flatten().collect();
        let [components, height, width] = self.shape;
        Ok(Some(Tensor::from_slice(&values).view([-1, components, height, width]).to_device(device)))
    }
}

/// Flows `[B,2,H,W]` of the first two frames of a batch, from the cache; none where there is no cache.
///
/// # Errors
/// As [`FlowCache::flow`].
pub(crate) fn known_flow(
    cache: Option<&FlowCache>,
    model: &LaqModel,
    batch: &DeviceBatch,
    frames_BTCHW: &Tensor,
) -> anyhow::Result<Option<Tensor>> {
    let flow = cache.map(|cache| cache.flow(model, &batch.meta, &frames_BTCHW.narrow(1, 0, 2)));
    Ok(flow.transpose()?.flatten())
}

/// What a flow depends on besides the frames.
fn identity(flow: &FlowDecoderConfig, device: Device) -> anyhow::Result<Value> {
    let device = if device.is_cuda() { "cuda" } else { "cpu" };
    let mut identity = json!({ "teacher": flow.teacher, "device": device });
    if let Some(weights) = flow.teacher_weights.as_ref().filter(|_| flow.teacher.is_raft()) {
        identity["weights_sha256"] = FileDigest::of(weights)?.sha256.into();
        identity["num_updates"] = flow.teacher_num_updates.into();
    }
    Ok(identity)
}
