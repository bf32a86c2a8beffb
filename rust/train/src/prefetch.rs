//! Batches on the device: the next ones are brought there while the training thread computes.

use crate::{
    boundary::caught,
    data::{BatchStream, ValidationBatches},
    error::{Result, TrainError},
    resize::resize_frames,
    signals::Stopped,
};
use hlrp_data::{Batch, ImageStream, Position, SampleMeta, VectorStream};
use hlrp_torch::{HostToDevice, World, tensor_from_vec};
use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tch::{Device, Tensor};

/// Images of one role on the device.
pub struct DeviceImages {
    /// `uint8 [B,T,C,H,W]`.
    pub pixels_BTCHW: Tensor,
    /// `bool [B,T]`, true = real.
    pub is_real_BT: Tensor,
}

/// Vectors over time on the device.
pub struct DeviceVectors {
    /// `float32 [B,T,N]`.
    pub values_BTN: Tensor,
    /// `bool [B,T]`, true = padded.
    pub is_pad_BT: Tensor,
    /// `bool [B,N]`, true = the source of the sample has no such dimension.
    pub is_pad_dim_BN: Tensor,
}

/// [`hlrp_data::Batch`] on the device.
pub struct DeviceBatch {
    /// Role to images.
    pub images: BTreeMap<String, DeviceImages>,
    /// `[B]` instructions.
    pub task: Vec<String>,
    /// States.
    pub state: Option<DeviceVectors>,
    /// Actions.
    pub action: Option<DeviceVectors>,
    /// Labels by key.
    pub labels: BTreeMap<String, DeviceVectors>,
    /// `[B]` origins.
    pub meta: Vec<SampleMeta>,
}

impl DeviceBatch {
    /// Brings a batch to the device, and its images to the size that was asked for. On the CPU its tensors take over the batch's memory without a copy.
    ///
    /// # Errors
    /// A buffer that does not match its shape; no memory on the device.
    pub fn from_host(batch: Batch, transfer: &HostToDevice) -> Result<Self> {
        let images = batch.images.into_iter().map(|(role, stream)| Ok((role, images(stream, transfer)?)));
        let labels = batch.labels.into_iter().map(|(key, stream)| Ok((key, vectors(stream, transfer)?)));
        Ok(Self {
            images: images.collect::<Result<_>>()?,
            labels: labels.collect::<Result<_>>()?,
            task: batch.task,
            state: batch.state.map(|stream| vectors(stream, transfer)).transpose()?,
            action: batch.action.map(|stream| vectors(stream, transfer)).transpose()?,
            meta: batch.meta,
        })
    }

    /// Its tensors by name, in a fixed order.
    pub(crate) fn tensors(&self) -> Vec<(String, &Tensor)> {
        let images = self.images.iter().flat_map(|(role, images)| {
            [("pixels", &images.pixels_BTCHW), ("is_real", &images.is_real_BT)]
                .map(|(part, tensor)| (format!("images.{role}.{part}"), tensor))
        });
        let named = [("state", &self.state), ("action", &self.action)];
        let vectors = named.into_iter().filter_map(|(name, vectors)| Some((name.to_owned(), vectors.as_ref()?)));
        let labels = self.labels.iter().map(|(key, vectors)| (format!("labels.{key}"), vectors));
        let of_vectors = vectors.chain(labels).flat_map(|(name, vectors)| {
            [("values", &vectors.values_BTN), ("is_pad", &vectors.is_pad_BT), ("is_pad_dim", &vectors.is_pad_dim_BN)]
                .map(|(part, tensor)| (format!("{name}.{part}"), tensor))
        });
        images.chain(of_vectors).collect()
    }

    /// Samples in the batch.
    pub fn num_samples(&self) -> usize {
        self.meta.len()
    }
}

fn images(stream: ImageStream, transfer: &HostToDevice) -> Result<DeviceImages> {
    let pixels_BTCHW = tensor_from_vec(Vec::<u8>::from(stream.pixels_BTCHW), &stream.shape)?;
    let is_real_BT = tensor_from_vec(stream.is_real_BT, &stream.shape[..2])?;
    let size = [stream.size.height as i64, stream.size.width as i64];
    let resized = |[pixels_BTCHW, is_real_BT]: [Tensor; 2]| [resize_frames(&pixels_BTCHW, size), is_real_BT];
    let [pixels_BTCHW, is_real_BT] = transfer.copy([pixels_BTCHW, is_real_BT], resized)?;
    Ok(DeviceImages { pixels_BTCHW, is_real_BT })
}

fn vectors(stream: VectorStream, transfer: &HostToDevice) -> Result<DeviceVectors> {
    let values_BTN = tensor_from_vec(stream.values_BTN, &stream.shape)?;
    let is_pad_BT = tensor_from_vec(stream.is_pad_BT, &stream.shape[..2])?;
    let is_pad_dim_BN = tensor_from_vec(stream.is_pad_dim_BN, &[stream.shape[0], stream.shape[2]])?;
    let [values_BTN, is_pad_BT, is_pad_dim_BN] =
        transfer.copy([values_BTN, is_pad_BT, is_pad_dim_BN], |tensors| tensors)?;
    Ok(DeviceVectors { values_BTN, is_pad_BT, is_pad_dim_BN })
}

/// Batches that may wait on the device besides the one in use.
const NUM_AHEAD: usize = 1;

/// A batch on the device and the position of the stream after it.
pub(crate) struct Prefetched {
    pub(crate) batch: DeviceBatch,
    pub(crate) position: Position,
    transfer: Duration,
}

/// What the batches since the last [`DevicePrefetcher::take_usage`] cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) num_samples: u64,
    /// Time that the training thread waited for them.
    pub(crate) wait: Duration,
    /// Time that their way to the device took, while the training thread computed.
    pub(crate) transfer: Duration,
}

impl Usage {
    /// With the samples of all processes, which have as many each.
    pub(crate) fn of_all(self, world: &World) -> Self {
        Self { num_samples: self.num_samples * world.size() as u64, ..self }
    }
}

/// Takes batches from a stream and brings them to the device on a thread of its own.
pub(crate) struct DevicePrefetcher {
    receiver: Option<Receiver<Result<Prefetched>>>,
    thread: Option<JoinHandle<()>>,
    usage: Usage,
}

impl DevicePrefetcher {
    /// Starts the thread. It must not draw random numbers: libtorch's generators belong to the training thread.
    ///
    /// # Errors
    /// A device that libtorch does not have, or a thread that cannot be started.
    pub(crate) fn start(mut stream: Box<dyn BatchStream>, device: Device) -> Result<Self> {
        let transfer = HostToDevice::new(device)?;
        let (sender, receiver) = sync_channel(NUM_AHEAD);
        let prefetch = move || {
            loop {
                let prefetched = caught(|| prefetch(stream.as_mut(), &transfer));
                let is_over = prefetched.is_err();
                // A closed channel means that the training is over.
                if sender.send(prefetched).is_err() || is_over {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("prefetch".to_owned()).spawn(prefetch);
        let thread = thread.map_err(|error| TrainError::Data(error.into()))?;
        Ok(Self { receiver: Some(receiver), thread: Some(thread), usage: Usage::default() })
    }

    /// Waits for the next batch; none if `is_stopped` turns true first.
    ///
    /// # Errors
    /// Whatever the stream failed with, once; afterwards that the stream is over.
    pub(crate) fn next(&mut self, is_stopped: impl Fn() -> bool) -> Result<Option<Prefetched>> {
        let start = Instant::now();
        let over = || TrainError::Data(anyhow::anyhow!("the thread that prepares batches has ended"));
        let prefetched = match self.receiver.as_ref().map(|receiver| receive(receiver, is_stopped)) {
            Some(Received::Item(prefetched)) => prefetched?,
            Some(Received::Stopped) => return Ok(None),
            Some(Received::Over) | None => return Err(over()),
        };
        self.usage.wait += start.elapsed();
        self.usage.transfer += prefetched.transfer;
        self.usage.num_samples += prefetched.batch.num_samples() as u64;
        Ok(Some(prefetched))
    }

    /// What the batches since the last call cost.
    pub(crate) fn take_usage(&mut self) -> Usage {
        std::mem::take(&mut self.usage)
    }
}

impl Drop for DevicePrefetcher {
    fn drop(&mut self) {
        self.receiver = None;
        let Some(thread) = self.thread.take() else { return };
        // A read that never returns must not keep the process alive.
        let deadline = Instant::now() + WAIT_FOR_THREAD;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("the thread that prepares batches panicked");
        }
    }
}

/// How often a waiting thread checks for a request to stop.
const POLL: Duration = Duration::from_millis(50);
/// How long the end of a run waits for the thread that prepares batches.
const WAIT_FOR_THREAD: Duration = Duration::from_secs(1);

/// The outcome of a wait on a channel.
enum Received<T> {
    Item(T),
    Stopped,
    /// The sender is gone.
    Over,
}

/// Waits for the next item, or until `is_stopped`.
fn receive<T>(receiver: &Receiver<T>, is_stopped: impl Fn() -> bool) -> Received<T> {
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(item) => return Received::Item(item),
            Err(RecvTimeoutError::Timeout) if is_stopped() => return Received::Stopped,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Received::Over,
        }
    }
}

/// The batches of a validation, read on their own thread; the error [`Stopped`] once `is_stopped` is true.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn interruptible(
    batches: ValidationBatches,
    is_stopped: impl Fn() -> bool,
) -> Result<impl Iterator<Item = anyhow::Result<Batch>>> {
    let (sender, receiver) = sync_channel(0);
    let read = move || {
        for batch in batches {
            if sender.send(Some(batch)).is_err() {
                return;
            }
        }
        // The receiver is gone if the validation has failed.
        let _ = sender.send(None);
    };
    let thread = thread::Builder::new().name("validation".to_owned()).spawn(read);
    thread.map_err(|error| TrainError::Data(error.into()))?;
    Ok(std::iter::from_fn(move || {
        if is_stopped() {
            return Some(Err(Stopped.into()));
        }
        match receive(&receiver, &is_stopped) {
            Received::Item(batch) => batch,
            Received::Stopped => Some(Err(Stopped.into())),
            Received::Over => Some(Err(anyhow::anyhow!("the thread that reads the validation set has ended"))),
        }
    }))
}

fn prefetch(stream: &mut dyn BatchStream, transfer: &HostToDevice) -> Result<Prefetched> {
    let batch = stream.next_batch().map_err(TrainError::Data)?;
    let position = stream.position();
    let start = Instant::now();
    let batch = DeviceBatch::from_host(batch, transfer)?;
    Ok(Prefetched { batch, position, transfer: start.elapsed() })
}
