//! The classical method of Lucas and Kanade, dense and from coarse to fine (Bouguet 2001, "Pyramidal implementation of the affine
//! Lucas Kanade feature tracker"): it needs no weights.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels.

use super::FlowTeacher;
use tch::{Kind, Tensor, no_grad};

/// Shortest side of the coarsest level.
const MIN_SIDE: i64 = 16;
/// Levels besides the finest.
const MAX_LEVELS: usize = 4;
/// Updates at each level.
const NUM_UPDATES: usize = 4;
/// Side of the window in which the flow is the same.
const WINDOW: i64 = 7;
/// Longest update in pixels of its level.
const MAX_UPDATE: f64 = 1.0;
/// Keeps the flow at 0 where nothing has structure: variance of the gradients, for pixels in [0, 1].
const MIN_STRUCTURE: f64 = 1e-4;

/// Estimates flow by the brightness of small windows.
pub struct LucasKanade;

impl FlowTeacher for LucasKanade {
    fn flow(&self, frames_BTCHW: &Tensor) -> Tensor {
        no_grad(|| {
            let grey_BTHW = frames_BTCHW.to_kind(Kind::Float).mean_dim([2].as_slice(), false, Kind::Float);
            let mut levels = vec![grey_BTHW];
            while levels.len() <= MAX_LEVELS {
                let size = levels[levels.len() - 1].size();
                if size[2].min(size[3]) < 2 * MIN_SIDE {
                    break;
                }
                let coarser = levels[levels.len() - 1].avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None);
                levels.push(coarser);
            }
            let coarsest = levels[levels.len() - 1].size();
            let mut flow_B2HW =
                levels[0].new_zeros([coarsest[0], 2, coarsest[2], coarsest[3]], (Kind::Float, levels[0].device()));
            for grey_BTHW in levels.iter().rev() {
                let size = grey_BTHW.size();
                if flow_B2HW.size()[2..] != size[2..] {
                    flow_B2HW = flow_B2HW.upsample_bilinear2d([size[2], size[3]], false, None, None) * 2.0;
                }
                for _ in 0..NUM_UPDATES {
                    flow_B2HW = window_mean(&(&flow_B2HW + update(grey_BTHW, &flow_B2HW)));
                }
            }
            flow_B2HW
        })
    }
}

/// By how much the flow changes so that frame t+k, moved back by it, is closer to frame t.
fn update(grey_BTHW: &Tensor, flow_B2HW: &Tensor) -> Tensor {
    let (first_B1HW, second_B1HW) = (grey_BTHW.narrow(1, 0, 1), grey_BTHW.narrow(1, 1, 1));
    let moved_B1HW = moved_back(&second_B1HW, flow_B2HW);
    let middle_B1HW = (&first_B1HW + &moved_B1HW) * 0.5;
    let (along_x, along_y) = (slope(&middle_B1HW, 3), slope(&middle_B1HW, 2));
    let over_time = moved_B1HW - first_B1HW;
    let [xx, xy, yy, xt, yt] = [
        &along_x * &along_x + MIN_STRUCTURE,
        &along_x * &along_y,
        &along_y * &along_y + MIN_STRUCTURE,
        &along_x * &over_time,
        &along_y * &over_time,
    ]
    .map(|product| window_mean(&product));
    let determinant: Tensor = &xx * &yy - &xy * &xy;
    let dx = (&xy * &yt - &yy * &xt) / &determinant;
    let dy = (&xy * &xt - &xx * &yt) / &determinant;
    Tensor::cat(&[dx, dy], 1).clamp(-MAX_UPDATE, MAX_UPDATE)
}

/// The frame whose pixel at a place is that of `frame_B1HW` at the place plus the flow.
fn moved_back(frame_B1HW: &Tensor, flow_B2HW: &Tensor) -> Tensor {
    let size = frame_B1HW.size();
    let axis = |length: i64| Tensor::arange(length, (Kind::Float, frame_B1HW.device()));
    let place = |start: Tensor, component: i64, length: i64| {
        (start + flow_B2HW.select(1, component)) * 2.0 / (length - 1) as f64 - 1.0
    };
    let x = place(axis(size[3]).unsqueeze(0).unsqueeze(0), 0, size[3]);
    let y = place(axis(size[2]).unsqueeze(1).unsqueeze(0), 1, size[2]);
    const BILINEAR: i64 = 0;
    const BORDER: i64 = 1;
    frame_B1HW.grid_sampler(&Tensor::stack(&[x, y], -1), BILINEAR, BORDER, true)
}

/// Central difference along `dim`.
fn slope(frame_B1HW: &Tensor, dim: i64) -> Tensor {
    let padding = if dim == 3 { [1, 1, 0, 0] } else { [0, 0, 1, 1] };
    let padded = frame_B1HW.replication_pad2d(padding);
    let length = frame_B1HW.size()[dim as usize];
    (padded.narrow(dim, 2, length) - padded.narrow(dim, 0, length)) * 0.5
}

/// Mean over a window around each pixel.
fn window_mean(x_BCHW: &Tensor) -> Tensor {
    x_BCHW.avg_pool2d([WINDOW, WINDOW], [1, 1], [WINDOW / 2, WINDOW / 2], false, false, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// A smooth pattern on 64x64 pixels, moved by (dx, dy).
    fn pattern(dx: f64, dy: f64) -> Tensor {
        let axis = |shift: f64| Tensor::arange(64, (Kind::Float, Device::Cpu)) - shift;
        let (x, y) = (axis(dx).unsqueeze(0), axis(dy).unsqueeze(1));
        let wave = |x: &Tensor, y: &Tensor, a: f64, b: f64| (x * a + y * b).sin();
        (wave(&x, &y, 0.31, 0.17) + wave(&x, &y, -0.12, 0.29) + wave(&x, &y, 0.05, -0.07)) / 6.0 + 0.5
    }

    fn pair(dx: f64, dy: f64) -> Tensor {
        Tensor::stack(&[pattern(0.0, 0.0), pattern(dx, dy)], 0)
            .unsqueeze(0)
            .unsqueeze(2)
            .expand([1, 2, 3, 64, 64], false)
    }

    #[test]
    fn a_moved_pattern_has_the_flow_of_its_motion() {
        for (dx, dy) in [(1.0, 0.0), (0.0, -2.0), (3.5, 2.5), (-5.0, 4.0)] {
            let flow = LucasKanade.flow(&pair(dx, dy));
            let inner = flow.narrow(2, 12, 40).narrow(3, 12, 40).mean_dim([0, 2, 3].as_slice(), false, Kind::Float);
            let (x, y) = (inner.double_value(&[0]), inner.double_value(&[1]));
            assert!((x - dx).abs() < 0.15 && (y - dy).abs() < 0.15, "({x}, {y}) instead of ({dx}, {dy})");
        }
    }

    #[test]
    fn what_does_not_move_has_no_flow() {
        let still = LucasKanade.flow(&pair(0.0, 0.0)).abs().max().double_value(&[]);
        let blank = LucasKanade.flow(&Tensor::full([2, 2, 3, 32, 32], 0.5, (Kind::Float, Device::Cpu)));
        assert!(still < 1e-4 && blank.abs().max().double_value(&[]) == 0.0, "{still}");
    }
}
