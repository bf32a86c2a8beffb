//! Which machine this is, and what it is for.

mod hardware;
mod place;

pub use hardware::{Cpu, Gpu, Memory, gpus, has_gpu, num_cores};
pub use place::{Controller, Place, Signs, find_program, matches, refuse_login_node};

/// Name of this host.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
