//! Images on their way to image tokens.

use crate::tiny::{fresh, tiny_config};
use hlrp_config::with_hint;
use hlrp_nn::Pass;
use hlrp_nn::siglip::position_ids;
use hlrp_nn::smolvlm::{pad_resize, pad_resized_size, squash_resize};
use tch::{Device, Kind, Tensor, no_grad};

#[test]
fn a_wide_image_gets_a_black_bar_on_top() {
    let image_1CHW = Tensor::arange(8, (Kind::Float, Device::Cpu)).view([1, 1, 2, 4]) / 8.0;
    let prepared = pad_resize(&image_1CHW, 4, 4);
    assert!(prepared.narrow(2, 0, 2).equal(&Tensor::full([1, 1, 2, 4], -1.0, (Kind::Float, Device::Cpu))));
    assert!(prepared.narrow(2, 2, 2).equal(&(image_1CHW * 2.0 - 1.0)));
}

#[test]
fn uint8_and_unit_floats_are_the_same_image() {
    let levels = Tensor::randint(256, [2, 3, 10, 14], (Kind::Uint8, Device::Cpu));
    let unit = levels.to_kind(Kind::Float) / 255.0;
    assert!(pad_resize(&levels, 8, 8).equal(&pad_resize(&unit, 8, 8)));
    assert!(squash_resize(&levels, 8, 8).equal(&squash_resize(&unit, 8, 8)));
    assert!(squash_resize(&unit, 10, 14).equal(&unit));
}

#[test]
fn the_aspect_is_kept_with_the_rounding_of_two_divisions() {
    assert_eq!(pad_resized_size((480, 640), (512, 512)), (384, 512));
    assert_eq!(pad_resized_size((94, 3), (92, 35)), (91, 2));
    assert_eq!(pad_resized_size((1, 1000), (64, 64)), (1, 64));
}

#[test]
fn position_ids_spread_a_grid_over_the_table() {
    let column = |n: i64| Vec::<i64>::try_from(position_ids(32, 1, n, Device::Cpu)).unwrap();
    assert_eq!(column(32), (0..32).collect::<Vec<_>>());
    assert_eq!(column(16), (0..32).step_by(2).collect::<Vec<_>>());
    assert_eq!(column(24)[..9], [0, 1, 2, 4, 5, 6, 8, 9, 10]);
    let ids = Vec::<i64>::try_from(position_ids(8, 2, 4, Device::Cpu)).unwrap();
    assert_eq!(ids, [0, 2, 4, 6, 32, 34, 36, 38]);
}

#[test]
fn an_image_becomes_one_token_per_block() {
    let config = tiny_config();
    let (_store, model) = fresh(&config);
    for (height, width, num_tokens) in [(16, 16, 4), (8, 24, 3), (32, 16, 8)] {
        assert_eq!(config.num_image_tokens(height, width).unwrap(), num_tokens);
        let pixels_BCHW = Tensor::rand([2, 3, height, width], (Kind::Float, Device::Cpu));
        assert_eq!(no_grad(|| model.embed_images(&pixels_BCHW, &Pass::plain(false))).size(), [2, num_tokens, 16]);
    }
    for (height, width) in [(16, 20), (0, 16), (4, 4)] {
        let error = with_hint(&config.num_image_tokens(height, width).unwrap_err());
        assert!(error.contains(&format!("{width}x{height}")) && error.contains("multiples of 8"), "{error}");
    }
}

#[test]
fn a_block_is_projected_row_by_row() {
    let (store, model) = fresh(&tiny_config());
    let trace = hlrp_nn::Trace::default();
    let pixels_BCHW = Tensor::rand([1, 3, 8, 16], (Kind::Float, Device::Cpu));
    let tokens_BND = no_grad(|| model.embed_images(&pixels_BCHW, &Pass { train: false, trace: Some(&trace) }));
    let records = trace.into_records();
    let patches_ND = &records.iter().find(|(name, _)| name == "vision.post_layernorm").unwrap().1.squeeze_dim(0);
    let (_, proj) = store
        .state()
        .into_iter()
        .find(|(name, _)| name.ends_with("proj.weight") && name.contains("connector"))
        .unwrap();
    // Two rows of four patches; the second block covers columns 2 and 3.
    let block = Tensor::cat(&[2, 3, 6, 7].map(|patch| patches_ND.select(0, patch)), 0);
    let expected = no_grad(|| proj.mv(&block));
    assert!((tokens_BND.select(1, 1).squeeze_dim(0) - expected).abs().max().double_value(&[]) < 1e-6);
}
