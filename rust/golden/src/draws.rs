//! Recorded samples instead of a random generator.

use hlrp_laq::Draws;
use std::collections::VecDeque;
use tch::{Device, Tensor};

/// Returns recorded samples in order.
#[derive(Default)]
pub(crate) struct RecordedDraws {
    normals: VecDeque<Tensor>,
    permutations: VecDeque<Tensor>,
}

impl RecordedDraws {
    /// Adds a normal sample if it was recorded.
    pub(crate) fn normal(mut self, tensor: Option<&Tensor>) -> Self {
        self.normals.extend(tensor.map(Tensor::shallow_clone));
        self
    }

    /// Adds a permutation if it was recorded.
    pub(crate) fn permutation(mut self, tensor: Option<&Tensor>) -> Self {
        self.permutations.extend(tensor.map(Tensor::shallow_clone));
        self
    }
}

impl Draws for RecordedDraws {
    fn normal(&mut self, shape: &[i64], _device: Device) -> Tensor {
        let tensor = self.normals.pop_front().expect("the reference drew fewer normal tensors");
        assert_eq!(tensor.size(), shape, "the reference drew a normal tensor of another shape");
        tensor
    }

    fn normal_of_batch(&mut self, shape: &[i64], device: Device) -> Tensor {
        // The reference draws for all slots of all samples, one after the other.
        self.normal(&[shape[0] * shape[1], shape[2]], device).view(shape)
    }

    fn permutation(&mut self, n: i64, _device: Device) -> Tensor {
        let tensor = self.permutations.pop_front().expect("the reference drew fewer permutations");
        assert_eq!(tensor.size(), [n], "the reference drew a permutation of another length");
        tensor
    }

    fn weighted(&mut self, _weights_K: &Tensor, _num: i64) -> Tensor {
        unreachable!("the reference draws no index by weight")
    }
}
