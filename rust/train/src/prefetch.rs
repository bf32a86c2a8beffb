//! Batches on the device: the next ones are brought there while the training thread computes.

use crate::{
    data::BatchStream,
    error::{Result, TrainError},
};
use hlrp_data::{Batch, ImageStream, Position, SampleMeta, VectorStream};
use hlrp_torch::{HostToDevice, tensor_from_vec};
use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, sync_channel},
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
    /// `[B]` origins.
    pub meta: Vec<SampleMeta>,
}

impl DeviceBatch {
    /// Brings a batch to the device. On the CPU its tensors take over the batch's memory without a copy.
    ///
    /// # Errors
    /// A buffer that does not match its shape; no memory on the device.
    pub fn from_host(batch: Batch, transfer: &HostToDevice) -> Result<Self> {
        let images = batch.images.into_iter().map(|(role, stream)| Ok((role, images(stream, transfer)?)));
        Ok(Self {
            images: images.collect::<Result<_>>()?,
            task: batch.task,
            state: batch.state.map(|stream| vectors(stream, transfer)).transpose()?,
            action: batch.action.map(|stream| vectors(stream, transfer)).transpose()?,
            meta: batch.meta,
        })
    }

    /// Samples in the batch.
    pub fn num_samples(&self) -> usize {
        self.meta.len()
    }
}

fn images(stream: ImageStream, transfer: &HostToDevice) -> Result<DeviceImages> {
    let pixels_BTCHW = tensor_from_vec(Vec::<u8>::from(stream.pixels_BTCHW), &stream.shape)?;
    let is_real_BT = tensor_from_vec(stream.is_real_BT, &stream.shape[..2])?;
    let [pixels_BTCHW, is_real_BT] = pair(pixels_BTCHW, is_real_BT, transfer)?;
    Ok(DeviceImages { pixels_BTCHW, is_real_BT })
}

fn vectors(stream: VectorStream, transfer: &HostToDevice) -> Result<DeviceVectors> {
    let values_BTN = tensor_from_vec(stream.values_BTN, &stream.shape)?;
    let is_pad_BT = tensor_from_vec(stream.is_pad_BT, &stream.shape[..2])?;
    let [values_BTN, is_pad_BT] = pair(values_BTN, is_pad_BT, transfer)?;
    Ok(DeviceVectors { values_BTN, is_pad_BT })
}

fn pair(values: Tensor, mask: Tensor, transfer: &HostToDevice) -> Result<[Tensor; 2]> {
    let mut copies = transfer.copy(vec![values, mask])?.into_iter();
    Ok([(); 2].map(|()| copies.next().unwrap_or_default()))
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
                let prefetched = prefetch(stream.as_mut(), &transfer);
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

    /// Waits for the next batch.
    ///
    /// # Errors
    /// Whatever the stream failed with, once; afterwards that the stream is over.
    pub(crate) fn next(&mut self) -> Result<Prefetched> {
        let start = Instant::now();
        let received = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok());
        let over = || TrainError::Data(anyhow::anyhow!("the thread that prepares batches has ended"));
        let prefetched = received.unwrap_or_else(|| Err(over()))?;
        self.usage.wait += start.elapsed();
        self.usage.transfer += prefetched.transfer;
        self.usage.num_samples += prefetched.batch.num_samples() as u64;
        Ok(prefetched)
    }

    /// What the batches since the last call cost.
    pub(crate) fn take_usage(&mut self) -> Usage {
        std::mem::take(&mut self.usage)
    }
}

impl Drop for DevicePrefetcher {
    fn drop(&mut self) {
        self.receiver = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that prepares batches panicked");
        }
    }
}

fn prefetch(stream: &mut dyn BatchStream, transfer: &HostToDevice) -> Result<Prefetched> {
    let batch = stream.next_batch().map_err(TrainError::Data)?;
    let position = stream.position();
    let start = Instant::now();
    let batch = DeviceBatch::from_host(batch, transfer)?;
    Ok(Prefetched { batch, position, transfer: start.elapsed() })
}
