//! Keys and values of a prefix, kept while a suffix is computed many times.

use tch::Tensor;

/// Per layer, one buffer `[B,G,P+S,E]` each for keys and values: the prefix is written once, the suffix in place at every step, so
/// that a step allocates nothing and addresses never change. For inference; gradients do not flow through it.
pub struct KvCache {
    layers: Vec<[Tensor; 2]>,
    num_prefix: i64,
    num_suffix: i64,
}

impl KvCache {
    /// An empty cache for `num_prefix` positions and at most `num_suffix` further ones.
    pub fn new(num_prefix: i64, num_suffix: i64) -> Self {
        Self { layers: Vec::new(), num_prefix, num_suffix }
    }

    /// Layers written so far.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// Keeps the prefix's keys and values of the next layer, `[B,G,P,E]` each.
    ///
    /// # Panics
    /// On another number of positions than announced.
    pub fn push_layer(&mut self, k_BGPE: &Tensor, v_BGPE: &Tensor) {
        let buffer = |x_BGPE: &Tensor| {
            let (batch, groups, positions, width) = x_BGPE.size4().expect("keys and values are [B,G,P,E]");
            assert_eq!(positions, self.num_prefix, "positions of the prefix");
            let options = (x_BGPE.kind(), x_BGPE.device());
            let buffer = Tensor::zeros([batch, groups, positions + self.num_suffix, width], options);
            buffer.narrow(2, 0, positions).copy_(&x_BGPE.detach());
            buffer
        };
        let layer = [buffer(k_BGPE), buffer(v_BGPE)];
        self.layers.push(layer);
    }

    /// The prefix's keys and values `[B,G,P,E]` of a layer.
    pub fn prefix(&self, layer: usize) -> (Tensor, Tensor) {
        let [k, v] = &self.layers[layer];
        (k.narrow(2, 0, self.num_prefix), v.narrow(2, 0, self.num_prefix))
    }

    /// Keys and values `[B,G,P+s,E]` of a layer, with those of a suffix (`[B,G,s,E]`, s ≤ S) behind the prefix. The result is a
    /// view that lasts until the next call for this layer.
    pub fn with_suffix(&self, layer: usize, k_BGSE: &Tensor, v_BGSE: &Tensor) -> (Tensor, Tensor) {
        let extended = |buffer: &Tensor, x_BGSE: &Tensor| {
            let positions = x_BGSE.size()[2];
            buffer.narrow(2, self.num_prefix, positions).copy_(&x_BGSE.detach());
            buffer.narrow(2, 0, self.num_prefix + positions)
        };
        let [k, v] = &self.layers[layer];
        (extended(k, k_BGSE), extended(v, v_BGSE))
    }
}
