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
    /// [`CudaGraph::replay`]. Run `body` once or twice before, so that libraries are loaded and their workspaces exist. Meanwhile no other
    /// thread may draw random numbers on a GPU or wait for one. After an error libtorch's generator and allocator may refuse further work on
    /// the GPU.
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
        let capture = Capture { graph: &mut graph };
        let result = body();
        let end = capture.end();
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

/// A capture that has begun. It ends with this object, also where `body` panics.
struct Capture<'a> {
    graph: &'a mut CudaGraph,
}

impl Capture<'_> {
    fn end(mut self) -> Result<(), TorchError> {
        let result = self.finish();
        std::mem::forget(self);
        result
    }

    fn finish(&mut self) -> Result<(), TorchError> {
        // SAFETY: a graph whose capture has begun and not ended.
        let result = ffi::check("capture a CUDA graph", unsafe { ffi::hlrp_graph_end(self.graph.raw) });
        if result.is_err() {
            self.graph.raw = ptr::null_mut(); // it must stay: libtorch's allocator still refers to it
        }
        result
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // What is wrong with a recording that nobody will use does not matter.
        let _ = self.finish();
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: an owned graph, or null, which is ignored.
        unsafe { ffi::hlrp_graph_free(self.raw) }
    }
}
