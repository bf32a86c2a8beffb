//! Picture preparation.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_data::{FrameSize, resize_planes};
use hlrp_nn::smolvlm::{pad_resize, pad_resized_size, squash_resize};
use tch::{Device, Kind, Tensor};

/// Fraction of the values that truncation to uint8 may turn into their neighbour.
const MAX_TRUNCATED: f64 = 0.05;
/// Fraction of the values that a GPU, which adds in another order, may round to their neighbour.
const MAX_ROUNDED: f64 = 1e-3;

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let names: Vec<&String> = case.outputs.keys().filter(|name| name.contains('@')).collect();
    for name in names {
        let (image, rest) = name.split_once('.').context("a recorded image has no name")?;
        let (flavour, size) = rest.split_once('@').context("a recorded image has no size")?;
        let (height, width) = size.split_once('x').context("a size is not HxW")?;
        let size = (height.parse()?, width.parse()?);
        check_image(case, name, image, flavour, size, comparison)?;
    }
    pad_sizes(case, comparison)
}

fn check_image(
    case: &Case,
    name: &str,
    image: &str,
    flavour: &str,
    (height, width): (i64, i64),
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let u8_1CHW = case.input(&format!("{image}.u8"))?.permute([2, 0, 1]).unsqueeze(0);
    // Resized at the scale of uint8, before it becomes uint8 again.
    let levels_hwC = || squash_resize(&u8_1CHW.to_kind(Kind::Float), height, width).squeeze_dim(0).permute([1, 2, 0]);
    match flavour {
        "pad" => comparison.check(name, &pad_resize(&u8_1CHW, height, width), Tolerance::Forward),
        "squash_float" => comparison.check(name, &squash_resize(&u8_1CHW, height, width), Tolerance::Forward),
        "squash_u8_round" => {
            let ours_hwC = levels_hwC().round().clamp(0.0, 255.0).to_kind(Kind::Uint8);
            if ours_hwC.device().is_cuda() {
                let close = within_one_level(&ours_hwC, &case.outputs[name], MAX_ROUNDED);
                comparison.meant_difference(
                    name,
                    close,
                    "differs by more than a different order of summation explains",
                );
            } else {
                comparison.check(name, &ours_hwC, Tolerance::Forward);
            }
        }
        "squash_u8_trunc" => {
            let ours_hwC = levels_hwC().to_kind(Kind::Uint8);
            let close = within_one_level(&ours_hwC, &case.outputs[name], MAX_TRUNCATED);
            comparison.meant_difference(name, close, "differs by more than truncation explains");
        }
        "squash_u8_pil" => {
            let close = within_one_level(&loader_resize(case, image, height, width)?, &case.outputs[name], 1.0);
            comparison.meant_difference(name, close, "differs by more than one level");
        }
        _ => {}
    }
    Ok(())
}

/// Whether uint8 images differ by at most one level, in at most the fraction `max_fraction` of their values.
fn within_one_level(ours: &Tensor, recorded: &Tensor, max_fraction: f64) -> bool {
    let levels = |x: &Tensor| x.to_device(Device::Cpu).to_kind(Kind::Int);
    let difference = (levels(ours) - levels(recorded)).abs();
    let fraction = difference.ne(0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    difference.max().int64_value(&[]) <= 1 && fraction <= max_fraction
}

/// The data loader's resize, which is Pillow's with other fixed-point factors, `uint8 [h,w,3]`.
fn loader_resize(case: &Case, image: &str, height: i64, width: i64) -> anyhow::Result<Tensor> {
    let u8_HWC = case.input(&format!("{image}.u8"))?;
    let planes_CHW = Vec::<u8>::try_from(u8_HWC.permute([2, 0, 1]).reshape([-1]))?;
    let from = FrameSize { height: usize::try_from(u8_HWC.size()[0])?, width: usize::try_from(u8_HWC.size()[1])? };
    let to = FrameSize { height: usize::try_from(height)?, width: usize::try_from(width)? };
    let resized_Chw = Tensor::from_slice(&resize_planes(from, &planes_CHW, to)?).view([3, height, width]);
    Ok(resized_Chw.permute([1, 2, 0]))
}

/// Rows of source height and width, target height and width, image height and width inside the target.
fn pad_sizes(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let recorded = case.outputs.get("pad_sizes").context("outputs.safetensors has no `pad_sizes`")?;
    let rows = Vec::<Vec<i64>>::try_from(recorded)?;
    let ours: Vec<i64> = rows
        .iter()
        .flat_map(|row| {
            let inner = pad_resized_size((row[0], row[1]), (row[2], row[3]));
            [row[0], row[1], row[2], row[3], inner.0, inner.1]
        })
        .collect();
    comparison.check("pad_sizes", &Tensor::from_slice(&ours), Tolerance::Forward);
    Ok(())
}
