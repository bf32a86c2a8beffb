//! A fixed sample of the pairs of one split, which stays in memory for the whole run: frames, actions and states.
//!
//! Shape suffixes: B pairs of a batch, N pairs of all processes, T = 2 frames, A width of the actions, S width of the states, P
//! pixels of a small frame.

use crate::data::{pair_actions, pixels_of, with_training_validated};
use crate::model::LaqModel;
use crate::patches::unit_frames;
use hlrp_data::{Loader, Mixture, Shard};
use hlrp_nn::Pass;
use hlrp_schema::RequestConfig;
use hlrp_torch::{HostToDevice, World};
use hlrp_train::DeviceBatch;
use hlrp_train::validation::gather_rows;
use std::sync::Arc;
use tch::{Device, Kind, Tensor, no_grad};

/// Side of a small frame in pixels.
const SMALL_SIDE: i64 = 32;

/// Pairs of all processes, float64 on the CPU; the frames are those of this process.
pub(super) struct Pairs {
    /// `uint8 [B,T,C,H,W]` of each batch.
    frames: Vec<Tensor>,
    /// Numbers of the episodes, `[N]`.
    pub(super) episodes: Vec<i64>,
    /// Sum of the actions from frame t to frame t+k, `[N,A]`.
    pub(super) actions_NA: Tensor,
    /// States at frame t and at frame t+k, each `[N,S]`; none where the data has none.
    pub(super) states: Option<[Tensor; 2]>,
    /// Frame t, `[N,P]`.
    pub(super) earlier_NP: Tensor,
    /// What changes until frame t+k, `[N,P]`.
    pub(super) difference_NP: Tensor,
}

/// Where the pairs of probes come from: the same sources with the actions of a whole pair, and the states at both of its ends.
pub(super) struct PairSource {
    /// Its validation set is that of the run.
    test: Arc<Mixture>,
    /// Its validation set is the training set of the run.
    fit: Arc<Mixture>,
}

impl PairSource {
    /// None where a source has no actions, or others than the rest.
    ///
    /// # Errors
    /// Sources that cannot be split.
    pub(super) fn new(mixture: &Mixture, request: &RequestConfig) -> anyhow::Result<Option<Self>> {
        if mixture.layout().action.is_none() {
            return Ok(None);
        }
        if let Err(problem) = mixture.require_like_actions() {
            tracing::warn!("no probes: {problem}");
            return Ok(None);
        }
        let (test, fit) = (mixture.with_whole_pairs(request)?, with_training_validated(mixture, request)?);
        Ok(Some(Self { test: Arc::new(test), fit: Arc::new(fit) }))
    }

    /// As `cameras` see them, about `num_pairs` pairs of the training episodes and as many of the held-out ones, each spread evenly over them.
    ///
    /// # Errors
    /// Data that cannot be read, or another process that is gone.
    pub(super) fn load(
        &self,
        cameras: &[String],
        batch_size: usize,
        num_pairs: usize,
        world: &World,
    ) -> anyhow::Result<[Pairs; 2]> {
        let load = |mixture| load(mixture, cameras, batch_size, num_pairs, world);
        Ok([load(&self.fit)?, load(&self.test)?])
    }
}

fn load(
    mixture: &Arc<Mixture>,
    cameras: &[String],
    batch_size: usize,
    num_pairs: usize,
    world: &World,
) -> anyhow::Result<Pairs> {
    let limit = num_pairs.div_ceil(batch_size * world.size()).max(1);
    let shard = Shard { rank: world.rank() as u64, world: world.size() as u64 };
    let transfer = HostToDevice::new(Device::Cpu)?;
    let (mut frames, mut rows) = (Vec::new(), Rows::default());
    for batch in Loader::validation(mixture, Some(limit), shard)? {
        let batch = DeviceBatch::from_host(batch?, &transfer)?;
        let pixels_BTCHW = pixels_of(&batch, cameras)?;
        let small_BTP = small(&pixels_BTCHW);
        let (earlier_BP, later_BP) = (small_BTP.select(1, 0), small_BTP.select(1, 1));
        rows.difference.push(&later_BP - &earlier_BP);
        rows.earlier.push(earlier_BP);
        rows.actions.extend(pair_actions(&batch));
        rows.states.extend(batch.state.map(|state| state.values_BTN.flatten(1, 2)));
        rows.episodes.extend(batch.meta.iter().map(|meta| {
            let source = mixture.sources().iter().position(|source| source.name() == meta.source);
            ((source.unwrap_or_default() as i64) << 32) + meta.episode as i64
        }));
        frames.push(pixels_BTCHW);
    }
    let layout = mixture.layout();
    let width = |block: Option<[usize; 2]>| block.map_or(0, |[_, width]| width as i64);
    let num_pixels = 3 * SMALL_SIDE * SMALL_SIDE;
    let states_NS = gathered(rows.states, 2 * width(layout.state), world)?;
    let num_episodes = rows.episodes.len() as i64;
    let episodes_N1 = gather_rows(world, &Tensor::from_slice(&rows.episodes).view([num_episodes, 1]))?;
    let has_states = width(layout.state) > 0;
    Ok(Pairs {
        frames,
        episodes: Vec::try_from(episodes_N1.squeeze_dim(1))?,
        actions_NA: gathered(rows.actions, width(layout.action), world)?,
        states: has_states
            .then(|| [0, 1].map(|end| states_NS.narrow(1, end * width(layout.state), width(layout.state)))),
        earlier_NP: gathered(rows.earlier, num_pixels, world)?,
        difference_NP: gathered(rows.difference, num_pixels, world)?,
    })
}

/// What [`load`] collects of the batches of this process.
#[derive(Default)]
struct Rows {
    episodes: Vec<i64>,
    actions: Vec<Tensor>,
    states: Vec<Tensor>,
    earlier: Vec<Tensor>,
    difference: Vec<Tensor>,
}

/// Frames `uint8 [B,T,3,H,W]` as `[B,T,P]` in [0, 1].
fn small(pixels_BTCHW: &Tensor) -> Tensor {
    let size = pixels_BTCHW.size();
    let frames = unit_frames(pixels_BTCHW).flatten(0, 1).adaptive_avg_pool2d([SMALL_SIDE, SMALL_SIDE]);
    frames.view([size[0], size[1], -1])
}

/// Rows of all batches of all processes, float64 `[N,width]`.
fn gathered(batches: Vec<Tensor>, width: i64, world: &World) -> anyhow::Result<Tensor> {
    let own = match batches.as_slice() {
        [] => Tensor::zeros([0, width], (Kind::Double, Device::Cpu)),
        batches => Tensor::cat(batches, 0).to_kind(Kind::Double),
    };
    gather_rows(world, &own)
}

impl Pairs {
    /// What `model` sees change in each pair, before it is normalised: float32 `[N,S,Q]` on the device of the model.
    ///
    /// # Errors
    /// Another process is gone.
    pub(super) fn changes(&self, model: &LaqModel, world: &World) -> anyhow::Result<Tensor> {
        let (device, dims) = (model.store().device(), model.dims());
        let change = |pixels_BTCHW: &Tensor| {
            let frames_BTCHW = unit_frames(&pixels_BTCHW.to_device(device));
            let change_BSQ = no_grad(|| model.encode(&frames_BTCHW, &Pass::plain(false)).change_BSQ);
            change_BSQ.flatten(1, 2).to_kind(Kind::Float).to_device(Device::Cpu)
        };
        let changes = self.frames.iter().map(change).collect();
        let all_NP = gathered(changes, dims.code_seq_len * dims.code_dim, world)?;
        Ok(all_NP.view([-1, dims.code_seq_len, dims.code_dim]).to_kind(Kind::Float).to_device(device))
    }
}
