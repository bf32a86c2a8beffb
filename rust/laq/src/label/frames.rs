//! Frames of the pairs that are labelled, decoded ahead of the model by several threads.

use anyhow::Context;
use hlrp_data::{DataError, Dataset, FrameSize};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope};

/// Most threads that decode: each keeps the frames of two windows.
const MAX_THREADS: usize = 8;

/// Where frames come from.
pub(super) struct FrameSource<'a> {
    pub(super) dataset: &'a Arc<dyn Dataset>,
    /// In the order of the model.
    pub(super) cameras: &'a [String],
    pub(super) size: FrameSize,
}

/// `uint8 [N,3,H,W]` of each camera.
type Frames = Vec<Vec<u8>>;

/// The frames of windows of rows, in the order of the windows.
pub(super) struct FramesAhead {
    /// Of each thread, which has every n-th window.
    threads: Vec<Receiver<Result<Frames, DataError>>>,
    num_read: usize,
}

impl FramesAhead {
    /// Starts the threads.
    pub(super) fn start<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        source: &'scope FrameSource<'env>,
        windows: &'scope [Range<u64>],
    ) -> Self {
        let num_cores = thread::available_parallelism().map_or(1, usize::from);
        let num_threads = num_cores.min(MAX_THREADS).min(windows.len());
        let start = |nth| {
            let (sender, receiver) = sync_channel(1);
            scope.spawn(move || source.read(windows.iter().skip(nth).step_by(num_threads), &sender));
            receiver
        };
        Self { threads: (0..num_threads).map(start).collect(), num_read: 0 }
    }

    /// Waits for the frames of the next window.
    ///
    /// # Errors
    /// Frames that cannot be read; every window was read.
    pub(super) fn next(&mut self) -> anyhow::Result<Frames> {
        let thread =
            self.threads.get(self.num_read % self.threads.len().max(1)).context("there is no further window")?;
        self.num_read += 1;
        Ok(thread.recv().context("a thread that decodes has ended")??)
    }
}

impl FrameSource<'_> {
    /// Reads windows until the first that cannot be read, or until nobody waits for them.
    fn read<'w>(&self, windows: impl Iterator<Item = &'w Range<u64>>, sender: &SyncSender<Result<Frames, DataError>>) {
        let stores = self.cameras.iter().map(|camera| Arc::clone(self.dataset).frame_store(camera, Some(self.size)));
        let read = || {
            let stores = stores.collect::<Result<Vec<_>, _>>()?;
            let mut readers = stores.iter().map(|store| store.reader(1)).collect::<Result<Vec<_>, _>>()?;
            for window in windows {
                let rows: Vec<u64> = window.clone().collect();
                let mut frames = Vec::new();
                for reader in &mut readers {
                    let mut pixels_NCHW = vec![0; rows.len() * self.size.frame_bytes()];
                    reader.read(&rows, &mut pixels_NCHW)?;
                    frames.push(pixels_NCHW);
                }
                if sender.send(Ok(frames)).is_err() {
                    break;
                }
            }
            Ok(())
        };
        if let Err(error) = read() {
            // Nobody waits any more where the receiver is gone.
            let _ = sender.send(Err(error));
        }
    }
}
