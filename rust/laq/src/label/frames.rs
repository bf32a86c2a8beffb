//! Frames of the pairs that are labelled, read ahead of the model by several threads: decoded from the dataset, or from frame caches.

use anyhow::Context;
use hlrp_data::{
    BuildOptions, CacheSpec, DataError, Dataset, DiskRules, FrameCache, FrameSize, FrameStore, log_cache_progress,
};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope};

/// Most threads that read: each keeps the frames of two windows.
const MAX_THREADS: usize = 8;

/// Where frames come from.
pub(super) struct FrameSource {
    /// Of each camera, in the order of the model.
    stores: Vec<Box<dyn FrameStore>>,
    size: FrameSize,
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
        source: &'scope FrameSource,
        windows: &'scope [Range<u64>],
    ) -> Self {
        let num_threads = num_readers().min(windows.len());
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
        Ok(thread.recv().context("a thread that reads frames has ended")??)
    }
}

impl FrameSource {
    /// The frames of `cameras` in `size`, decoded from the dataset.
    ///
    /// # Errors
    /// A camera that this build cannot decode.
    pub(super) fn decoded(dataset: &Arc<dyn Dataset>, cameras: &[String], size: FrameSize) -> Result<Self, DataError> {
        let open = |camera: &String| Arc::clone(dataset).frame_store(camera, Some(size));
        Ok(Self { stores: cameras.iter().map(open).collect::<Result<_, _>>()?, size })
    }

    /// The same frames from the caches of all episodes under `dir`, which a training with `data.cache.enabled=true` shares. A cache that is
    /// missing is built first. `name` is the dataset's folder.
    ///
    /// # Errors
    /// Frames that cannot be decoded, a damaged cache, a full disk.
    pub(super) fn cached(
        dataset: &Arc<dyn Dataset>,
        name: &str,
        cameras: &[String],
        size: FrameSize,
        dir: &Path,
    ) -> Result<Self, DataError> {
        let open = |camera: &String| {
            let spec = CacheSpec::of(&**dataset, name, camera, size, dataset.episodes())?;
            let options = BuildOptions {
                num_workers: num_readers(),
                max_open_decoders: 1,
                max_bad_frames: 0,
                disk: &DiskRules::unlimited(),
                progress: &|num_done, num_total| log_cache_progress(name, camera, num_done, num_total),
            };
            let decoded = || Arc::clone(dataset).frame_store(camera, Some(size));
            Ok::<Box<dyn FrameStore>, _>(Box::new(FrameCache::open_or_build(dir, &spec, decoded, &options)?))
        };
        Ok(Self { stores: cameras.iter().map(open).collect::<Result<_, DataError>>()?, size })
    }

    /// Reads windows until the first that cannot be read, or until nobody waits for them.
    fn read<'w>(&self, windows: impl Iterator<Item = &'w Range<u64>>, sender: &SyncSender<Result<Frames, DataError>>) {
        let read = || {
            let mut readers = self.stores.iter().map(|store| store.reader(1)).collect::<Result<Vec<_>, _>>()?;
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

/// Threads that read at the same time.
fn num_readers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}
