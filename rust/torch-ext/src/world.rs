//! The processes that train one model together, and what they exchange.

use crate::TorchError;
use tch::Tensor;

/// One process among those of a run. Whatever sums, counts, draws or writes takes it.
///
/// With a single process every exchange is the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    rank: usize,
    size: usize,
}

impl World {
    /// The only process of a run.
    pub fn single() -> Self {
        Self { rank: 0, size: 1 }
    }

    /// Index of this process, `0..size`.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this process writes what a run leaves behind: rank 0.
    pub fn is_main(&self) -> bool {
        self.rank == 0
    }

    /// Replaces `tensor` by its sum over all processes, in place.
    ///
    /// # Errors
    /// A process that is gone, or tensors of different shapes.
    pub fn all_reduce(&self, _tensor: &Tensor) -> Result<(), TorchError> {
        Ok(())
    }

    /// Replaces `tensor` by that of rank 0, in place.
    ///
    /// # Errors
    /// As [`World::all_reduce`].
    pub fn broadcast(&self, _tensor: &Tensor) -> Result<(), TorchError> {
        Ok(())
    }

    /// The tensors of all processes, in the order of their ranks.
    ///
    /// # Errors
    /// As [`World::all_reduce`].
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        Ok(vec![tensor.shallow_clone()])
    }

    /// Waits until every process is here.
    ///
    /// # Errors
    /// A process that is gone.
    pub fn barrier(&self) -> Result<(), TorchError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn alone_every_exchange_is_the_identity() {
        let world = World::single();
        let tensor = Tensor::from_slice(&[1.0, 2.0]);
        world.all_reduce(&tensor).unwrap();
        world.broadcast(&tensor).unwrap();
        assert_eq!(world.all_gather(&tensor).unwrap(), [Tensor::from_slice(&[1.0, 2.0])]);
        world.barrier().unwrap();
        assert_eq!((world.rank(), world.size(), world.is_main()), (0, 1, true));
    }
}
