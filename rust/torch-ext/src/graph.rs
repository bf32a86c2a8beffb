//! CUDA graphs: work of a fixed shape, recorded once and replayed by one call, so that the host launches nothing.
#![allow(unsafe_code)] // each call hands a pointer that this module owns to the C++ shim

use crate::{TorchError, ffi};
use std::{ffi::c_void, ptr};
use tch::Device;

/// Recorded work of a GPU. A replay reads and writes the very memory that the capture saw: inputs are copied into the tensors that the
/// captured code read, results are in the tensors that it made. Random numbers are new at every replay.
pub struct CudaGraph {
    raw: *mut c_void,
}

// SAFETY: the graph is not tied to the thread that captured it; `&mut self` keeps replays apart.
unsafe impl Send for CudaGraph {}

impl CudaGraph {
    /// Records what `body` asks `device` to do. Nothing is executed: what `body` returns has contents after the first
    /// [`CudaGraph::replay`]. Run `body` once or twice before, so that libraries are loaded and their workspaces exist.
    ///
    /// # Errors
    /// Those of `body`; work that cannot be recorded, such as a value that the host reads; a device that is no GPU.
    pub fn capture<R, E: From<TorchError>>(
        device: Device,
        body: impl FnOnce() -> Result<R, E>,
    ) -> Result<(Self, R), E> {
        let mut graph = Self { raw: ptr::null_mut() };
        // SAFETY: `raw` is set to an owned graph on success and stays null otherwise.
        ffi::check("capture a CUDA graph", unsafe {
            ffi::hlrp_graph_begin(ffi::device_index(device)?, &mut graph.raw)
        })?;
        let result = body();
        // SAFETY: the graph whose capture began above.
        let end = ffi::check("capture a CUDA graph", unsafe { ffi::hlrp_graph_end(graph.raw) });
        let result = result?;
        end?;
        Ok((graph, result))
    }

    /// Does the recorded work, in the order of this thread's current stream; returns before it is complete.
    ///
    /// # Errors
    /// A graph that the driver refuses.
    pub fn replay(&mut self) -> Result<(), TorchError> {
        // SAFETY: an owned graph whose capture has ended.
        ffi::check("replay a CUDA graph", unsafe { ffi::hlrp_graph_replay(self.raw) })
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: an owned graph, or null, which is ignored.
        unsafe { ffi::hlrp_graph_free(self.raw) }
    }
}
