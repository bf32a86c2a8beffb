//! How well each position of the first frame matches those of the second.

use tch::{Kind, Tensor};

/// Products of all pairs of positions, at several resolutions of the second frame.
pub(super) struct Correlation {
    /// Each `[B·N,1,H/2^l,W/2^l]`.
    pyramid: Vec<Tensor>,
    /// `[1,R,R,2]` offsets (x, y) of a look-up: x is the outer index.
    window: Tensor,
}

impl Correlation {
    /// Of features `[B,C,H,W]` of both frames.
    pub(super) fn new(first: &Tensor, second: &Tensor, num_levels: i64, radius: i64) -> Self {
        let (batch, channels, rows, columns) = first.size4().expect("features are [B,C,H,W]");
        let products = first.flatten(2, 3).transpose(1, 2).matmul(&second.flatten(2, 3)) / (channels as f64).sqrt();
        let mut pyramid = vec![products.reshape([batch * rows * columns, 1, rows, columns])];
        for level in 1..num_levels as usize {
            let coarser = pyramid[level - 1].avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None);
            pyramid.push(coarser);
        }
        let side = 2 * radius + 1;
        let offsets = Tensor::arange_start(-radius, radius + 1, (Kind::Float, first.device()));
        let x = offsets.unsqueeze(1).expand([side, side], false);
        let y = offsets.unsqueeze(0).expand([side, side], false);
        Self { pyramid, window: Tensor::stack(&[x, y], -1).unsqueeze(0) }
    }

    /// Correlations around positions (x, y) `[B,2,H,W]` of the second frame: `[B,levels·R·R,H,W]`, bilinear, zero outside.
    pub(super) fn look_up(&self, positions_B2HW: &Tensor) -> Tensor {
        const BILINEAR: i64 = 0;
        const ZEROS: i64 = 0;
        let (batch, _, rows, columns) = positions_B2HW.size4().expect("positions are [B,2,H,W]");
        let mut centres = positions_B2HW.permute([0, 2, 3, 1]).reshape([-1, 1, 1, 2]);
        let mut levels = Vec::new();
        for products in &self.pyramid {
            let size = products.size();
            let places = &centres + &self.window;
            let unit = |axis: i64, count: i64| places.select(-1, axis) * (2.0 / (count - 1) as f64) - 1.0;
            let grid = Tensor::stack(&[unit(0, size[3]), unit(1, size[2])], -1);
            let near = products.grid_sampler(&grid, BILINEAR, ZEROS, true);
            levels.push(near.view([batch, rows, columns, -1]));
            centres = centres.g_div_scalar(2.0);
        }
        Tensor::cat(&levels, -1).permute([0, 3, 1, 2]).contiguous()
    }
}
