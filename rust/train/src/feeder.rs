//! A thread that keeps the next batches ready on the device.

use crate::{BatchStream, DeviceBatch, Result, TrainError};
use hlrp_data::Position;
use hlrp_torch::HostToDevice;
use std::{
    sync::mpsc::{Receiver, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tch::Device;

/// Batches that may wait on the device beside the one in use.
const NUM_AHEAD: usize = 1;

/// A batch on the device and where the stream stands behind it.
pub(crate) struct Fed {
    pub(crate) batch: DeviceBatch,
    /// A stream opened here continues with the batch after this one.
    pub(crate) position: Position,
    /// Time that its way to the device took, beside the computation.
    pub(crate) transfer: Duration,
}

/// Takes batches from a stream and brings them to the device while the training thread computes.
pub(crate) struct Feeder {
    receiver: Option<Receiver<Result<Fed>>>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    /// Starts the thread. It must not draw random numbers: libtorch's generators belong to the training thread.
    ///
    /// # Errors
    /// A device that libtorch does not have, or no thread to be had.
    pub(crate) fn start(mut stream: Box<dyn BatchStream>, device: Device) -> Result<Self> {
        let transfer = HostToDevice::new(device)?;
        let (sender, receiver) = sync_channel(NUM_AHEAD);
        let thread = thread::Builder::new()
            .name("feeder".to_owned())
            .spawn(move || {
                loop {
                    let fed = feed(stream.as_mut(), &transfer);
                    let is_over = fed.is_err();
                    // A closed channel means that the training is over.
                    if sender.send(fed).is_err() || is_over {
                        return;
                    }
                }
            })
            .map_err(|error| TrainError::Data(error.into()))?;
        Ok(Self { receiver: Some(receiver), thread: Some(thread) })
    }

    /// Waits for the next batch.
    ///
    /// # Errors
    /// Whatever the stream failed with, once; afterwards that the stream is over.
    pub(crate) fn next(&mut self) -> Result<Fed> {
        let received = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok());
        received.unwrap_or_else(|| Err(TrainError::Data(anyhow::anyhow!("the thread that prepares batches has ended"))))
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.receiver = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that prepares batches panicked");
        }
    }
}

fn feed(stream: &mut dyn BatchStream, transfer: &HostToDevice) -> Result<Fed> {
    let batch = stream.next_batch().map_err(TrainError::Data)?;
    let position = stream.position();
    let start = Instant::now();
    let batch = DeviceBatch::from_host(batch, transfer)?;
    Ok(Fed { batch, position, transfer: start.elapsed() })
}
