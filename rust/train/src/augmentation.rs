//! Random changes of the images of training: shifts and colors, on the device.
//!
//! Their numbers come from the device's torch generator, whose state is part of every checkpoint, and each process takes those of its
//! samples: what a sample looks like depends on the seed and on the position in the training, not on the number of decode threads or
//! processes.
//!
//! Shape suffixes: B samples, T frames, F = B·T, C = 3 channels, H rows, W columns, N changes.

use hlrp_schema::{AugmentationConfig, AugmentedFrames};
use hlrp_torch::World;
use tch::{Kind, Tensor, no_grad};

/// Weights of red, green and blue in a gray image (ITU-R BT.601, as torchvision).
const GRAY: [f64; 3] = [0.2989, 0.587, 0.114];
/// Shift down, shift to the right, brightness, contrast, saturation.
const NUM_CHANGES: i64 = 5;

/// Random changes of images.
pub struct Augmentation {
    config: AugmentationConfig,
    world: World,
}

impl Augmentation {
    /// The changes of a checked section, for one of the processes of `world`; none where it asks for none.
    pub fn new(config: &AugmentationConfig, world: &World) -> Option<Self> {
        config.is_on().then(|| Self { config: config.clone(), world: world.clone() })
    }

    /// Changes float images `[B,T,C,H,W]` in [0, 1].
    pub fn apply(&self, images_BTCHW: &Tensor) -> Tensor {
        no_grad(|| {
            let size = images_BTCHW.size();
            let drawn_T = if self.config.pair == AugmentedFrames::Same { 1 } else { size[1] };
            let draw = |num_rows| {
                Tensor::rand([num_rows, drawn_T, NUM_CHANGES], (Kind::Float, images_BTCHW.device())) * 2.0 - 1.0
            };
            let drawn_BTN = self.world.own_rows(size[0], draw).expand([size[0], size[1], NUM_CHANGES], false);
            let drawn_FN = drawn_BTN.reshape([-1, NUM_CHANGES]);
            let images_FCHW = self.shifted(&images_BTCHW.flatten(0, 1), &drawn_FN);
            self.recolored(images_FCHW, &drawn_FN).unflatten(0, [size[0], size[1]])
        })
    }

    /// Shifted by whole pixels; what comes in repeats the edge.
    fn shifted(&self, images_FCHW: &Tensor, drawn_FN: &Tensor) -> Tensor {
        if self.config.shift == 0.0 {
            return images_FCHW.shallow_clone();
        }
        let size = images_FCHW.size();
        let source = |change: i64, side: i64| {
            let shift_F1 = (drawn_FN.narrow(1, change, 1) * (self.config.shift * side as f64)).round();
            let pixels = Tensor::arange(side, (Kind::Float, images_FCHW.device()));
            (pixels - shift_F1).clamp(0.0, (side - 1) as f64).to_kind(Kind::Int64)
        };
        let rows_FH = source(0, size[2]).view([-1, 1, size[2], 1]).expand(&size, false);
        let columns_FW = source(1, size[3]).view([-1, 1, 1, size[3]]).expand(&size, false);
        images_FCHW.gather(2, &rows_FH, false).gather(3, &columns_FW, false)
    }

    /// With another brightness, contrast and saturation, in this order, each as torchvision's `adjust_brightness`, `adjust_contrast`,
    /// `adjust_saturation`.
    fn recolored(&self, images_FCHW: Tensor, drawn_FN: &Tensor) -> Tensor {
        let gray = |images: &Tensor| {
            let weighted = |channel: usize| images.narrow(1, channel as i64, 1) * GRAY[channel];
            weighted(0) + weighted(1) + weighted(2)
        };
        let blended = |images: &Tensor, other: &Tensor, change: i64, largest: f64| {
            let factor_F111 = drawn_FN.narrow(1, change, 1).view([-1, 1, 1, 1]) * largest + 1.0;
            ((images - other) * factor_F111 + other).clamp(0.0, 1.0)
        };
        let AugmentationConfig { brightness, contrast, saturation, .. } = self.config;
        let mut images_FCHW = images_FCHW;
        if brightness > 0.0 {
            images_FCHW = blended(&images_FCHW, &images_FCHW.zeros_like(), 2, brightness);
        }
        if contrast > 0.0 {
            let mean_F111 = gray(&images_FCHW).mean_dim([1, 2, 3].as_slice(), true, Kind::Float);
            images_FCHW = blended(&images_FCHW, &mean_F111, 3, contrast);
        }
        if saturation > 0.0 {
            images_FCHW = blended(&images_FCHW, &gray(&images_FCHW), 4, saturation);
        }
        images_FCHW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const OFF: AugmentationConfig =
        AugmentationConfig { pair: AugmentedFrames::Same, shift: 0.0, brightness: 0.0, contrast: 0.0, saturation: 0.0 };

    fn changed(config: &AugmentationConfig, images_BTCHW: &Tensor) -> Tensor {
        tch::manual_seed(3);
        let augmentation = Augmentation::new(config, &World::single()).expect("it changes something");
        augmentation.apply(images_BTCHW)
    }

    fn images(num_samples: i64) -> Tensor {
        tch::manual_seed(1);
        Tensor::rand([num_samples, 2, 3, 8, 10], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn without_a_change_there_is_none() {
        assert!(Augmentation::new(&OFF, &World::single()).is_none());
    }

    #[test]
    fn the_frames_of_a_sample_change_alike_or_each_by_itself() {
        let first = images(16).narrow(1, 0, 1);
        let still = Tensor::cat(&[&first, &first], 1);
        for (pair, is_alike) in [(AugmentedFrames::Same, true), (AugmentedFrames::Independent, false)] {
            let config = AugmentationConfig { pair, shift: 0.25, brightness: 0.5, ..OFF };
            let found = changed(&config, &still);
            assert_eq!(found.select(1, 0).equal(&found.select(1, 1)), is_alike, "{pair:?}");
            assert!(!found.select(0, 0).equal(&found.select(0, 1)), "samples differ");
            assert!(found.equal(&changed(&config, &still)), "the same seed gives the same images");
        }
    }

    #[test]
    fn a_shift_is_by_whole_pixels_and_repeats_the_edge() {
        let images = images(32);
        let found = changed(&AugmentationConfig { shift: 0.25, ..OFF }, &images);
        let mut shifts = std::collections::BTreeSet::new();
        for sample in 0..32 {
            let (before, after) = (images.get(sample), found.get(sample));
            let matches = |down: i64, right: i64| {
                let source = |side: i64, shift: i64| {
                    Tensor::from_slice(&(0..side).map(|to| (to - shift).clamp(0, side - 1)).collect::<Vec<_>>())
                };
                before.index_select(2, &source(8, down)).index_select(3, &source(10, right)).equal(&after)
            };
            let found = (-2..=2).flat_map(|down| (-2..=2).map(move |right| (down, right)));
            shifts.insert(found.into_iter().find(|(down, right)| matches(*down, *right)).expect("a shift"));
        }
        assert!(shifts.len() > 8, "{shifts:?}");
    }

    #[test]
    fn colors_change_as_torchvision_changes_them() {
        let images = images(4);
        let gray = |pixel: [f64; 3]| 0.2989 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
        let blend = |value: f64, other: f64, factor: f64| (factor * value + (1.0 - factor) * other).clamp(0.0, 1.0);
        tch::manual_seed(3);
        let drawn = Tensor::rand([4, 1, NUM_CHANGES], (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
        let found = changed(&AugmentationConfig { brightness: 0.4, contrast: 0.6, saturation: 0.9, ..OFF }, &images);
        for sample in 0..4 {
            let factor = |change: i64, largest: f64| 1.0 + largest * drawn.double_value(&[sample, 0, change]);
            for frame in 0..2 {
                let pixels = images.get(sample).get(frame).flatten(1, 2).to_kind(Kind::Double);
                let bright = |at: i64| [0, 1, 2].map(|c| blend(pixels.double_value(&[c, at]), 0.0, factor(2, 0.4)));
                let mean = (0..80).map(|at| gray(bright(at))).sum::<f64>() / 80.0;
                for at in 0..80 {
                    let contrasted = bright(at).map(|value| blend(value, mean, factor(3, 0.6)));
                    for channel in 0..3 {
                        let expected = blend(contrasted[channel], gray(contrasted), factor(4, 0.9));
                        let value = found.double_value(&[sample, frame, channel as i64, at / 10, at % 10]);
                        assert!((value - expected).abs() < 1e-5, "{value} {expected}");
                    }
                }
            }
        }
    }
}
