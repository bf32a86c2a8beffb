//! The quantizer computes in float32 whatever the precision of the rest.
#![allow(clippy::unwrap_used, non_snake_case)] // a test may panic

mod common;

use common::{config, frames, model};
use hlrp_nn::{Pass, Trace};
use hlrp_torch::{Autocast, AutocastDtype};
use tch::{Device, Kind};

#[test]
fn codes_are_chosen_in_float32_under_bf16_autocast() {
    let model = model(&config(), 1);
    let frames = frames(4);
    let trace = Trace::default();
    let (encoded, ids, tokens) = {
        let _autocast = Autocast::enter(Device::Cpu, AutocastDtype::Bf16).unwrap();
        let encoded = model.encode(&frames, &Pass { train: false, trace: Some(&trace) });
        let latent = model.quantizer.quantize(&encoded.change_BSQ);
        let tokens = model.bottleneck.action_tokens(&latent.vectors_BSQ);
        (encoded, latent.ids_BS.unwrap(), tokens)
    };
    let records = trace.into_records();
    let record = |name: &str| &records.iter().find(|(entry, _)| entry == name).unwrap().1;
    assert_eq!(record("enc_spatial.l0.self_attn").kind(), Kind::BFloat16, "autocast acts on the transformers");
    assert_eq!((encoded.change_BSQ.kind(), tokens.kind()), (Kind::Float, Kind::Float));

    // The same inputs without autocast give the same bits.
    let pair = tch::Tensor::stack(&[record("vq.in.frame0"), record("vq.in.frame1")], 1);
    let change = model.bottleneck.change(&pair, &Pass::plain(false));
    assert!(change.equal(&encoded.change_BSQ));
    assert!(model.quantizer.quantize(&change).ids_BS.unwrap().equal(&ids));
}
