//! Attention masks, shared heads, rotary positions, and the key/value cache.

use crate::tiny::{fresh, tiny_config};
use hlrp_nn::Pass;
use hlrp_nn::llama::{KvCache, Rope, additive_mask, attend, causal_mask};
use tch::{Device, Kind, Tensor, no_grad};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn positions(start: i64, end: i64) -> Tensor {
    Tensor::arange_start(start, end, (Kind::Int64, Device::Cpu)).unsqueeze(0)
}

fn largest_difference(left: &Tensor, right: &Tensor) -> f64 {
    (left - right).abs().max().double_value(&[])
}

#[test]
fn prefill_and_denoise_equal_the_joint_forward() {
    tch::manual_seed(0);
    let (num_prefix, num_suffix) = (5, 3);
    let (_store, model) = fresh(&tiny_config());
    let stack = model.text();
    let x_BLD = Tensor::randn([2, num_prefix + num_suffix, 16], FLOAT);
    let valid_BL = Tensor::from_slice2(&[[1_i64, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 1, 1, 1]]).to_kind(Kind::Bool);
    let mask_B1LL = causal_mask(&valid_BL);
    let all = positions(0, num_prefix + num_suffix);
    let joint_BLD = no_grad(|| stack.forward(&x_BLD, &all, &mask_B1LL, &Pass::plain(false)));

    let mut cache = KvCache::new(num_prefix, num_suffix);
    let rope = Rope::new(&positions(0, num_prefix), 4, 1e5);
    let mut prefix_BPD = x_BLD.narrow(1, 0, num_prefix);
    let prefix_mask = mask_B1LL.narrow(2, 0, num_prefix).narrow(3, 0, num_prefix);
    for layer in stack.layers() {
        let normed = layer.input_norm(&prefix_BPD);
        let (k, v) = (rope.rotate(&layer.keys(&normed)), layer.values(&normed));
        cache.push_layer(&k, &v);
        prefix_BPD =
            layer.finish(&prefix_BPD, &attend(&rope.rotate(&layer.queries(&normed)), &k, &v, Some(&prefix_mask)));
    }
    assert!(largest_difference(&prefix_BPD, &joint_BLD.narrow(1, 0, num_prefix)) < 1e-5);
    assert_eq!(cache.num_layers(), stack.layers().len());

    let rope = Rope::new(&positions(num_prefix, num_prefix + num_suffix), 4, 1e5);
    let suffix_mask = mask_B1LL.narrow(2, num_prefix, num_suffix);
    // The first round leaves another suffix behind, which the second must not see.
    for suffix_BSD in [Tensor::randn([2, num_suffix, 16], FLOAT), x_BLD.narrow(1, num_prefix, num_suffix)] {
        let mut x_BSD = suffix_BSD;
        for (index, layer) in stack.layers().iter().enumerate() {
            let normed = layer.input_norm(&x_BSD);
            let (k, v) = cache.with_suffix(index, &rope.rotate(&layer.keys(&normed)), &layer.values(&normed));
            x_BSD = layer.finish(&x_BSD, &attend(&rope.rotate(&layer.queries(&normed)), &k, &v, Some(&suffix_mask)));
        }
        prefix_BPD = x_BSD;
    }
    assert!(largest_difference(&prefix_BPD, &joint_BLD.narrow(1, num_prefix, num_suffix)) < 1e-5);
}

#[test]
fn a_shorter_suffix_fits_the_same_cache() {
    let mut cache = KvCache::new(2, 4);
    let prefix = Tensor::rand([1, 2, 2, 4], FLOAT);
    cache.push_layer(&prefix, &prefix);
    let suffix = Tensor::rand([1, 2, 3, 4], FLOAT);
    let (k, _) = cache.with_suffix(0, &suffix, &suffix);
    assert!(k.equal(&Tensor::cat(&[&prefix, &suffix], 2)));
    assert!(cache.prefix(0).1.equal(&prefix));
}

#[test]
fn later_and_padded_positions_are_not_seen() {
    tch::manual_seed(1);
    let (_store, model) = fresh(&tiny_config());
    let valid_BL = Tensor::from_slice2(&[[1_i64, 1, 0, 1, 1]]).to_kind(Kind::Bool);
    let run = |x_BLD: &Tensor| {
        no_grad(|| model.text().forward(x_BLD, &positions(0, 5), &causal_mask(&valid_BL), &Pass::plain(false)))
    };
    let x_BLD = Tensor::randn([1, 5, 16], FLOAT);
    let before = run(&x_BLD);
    // Position 2 is padding and position 4 comes last: nobody else may notice that they change.
    let changed = x_BLD.copy();
    let _ = changed.select(1, 2).fill_(3.0);
    let _ = changed.select(1, 4).fill_(-2.0);
    let after = run(&changed);
    for position in [0, 1, 3] {
        assert!(before.select(1, position).equal(&after.select(1, position)), "position {position} changed");
    }
    assert!(largest_difference(&before.select(1, 4), &after.select(1, 4)) > 1e-3);
}

#[test]
fn a_query_that_sees_nothing_weighs_all_positions_alike() {
    tch::manual_seed(2);
    let q_BALE = Tensor::randn([1, 4, 2, 8], FLOAT) * 30.0;
    let (k_BGME, v_BGME) = (Tensor::randn([1, 2, 3, 8], FLOAT), Tensor::randn([1, 2, 3, 8], FLOAT));
    let nothing = additive_mask(&Tensor::zeros([1, 2, 3], (Kind::Bool, Device::Cpu)));
    for kind in [Kind::Float, Kind::BFloat16] {
        let cast = |x: &Tensor| x.to_kind(kind);
        let out_BLX = attend(&cast(&q_BALE), &cast(&k_BGME), &cast(&v_BGME), Some(&nothing)).to_kind(Kind::Float);
        let mean_BGE = v_BGME.mean_dim([2].as_slice(), false, Kind::Float);
        let expected = mean_BGE.repeat_interleave_self_int(2, 1, None).flatten(1, 2);
        let tolerance = if kind == Kind::Float { 1e-6 } else { 2e-2 };
        assert!(largest_difference(&out_BLX.select(1, 0), &expected) < tolerance, "{kind:?}");
    }
}

#[test]
fn neighbouring_query_heads_share_a_key_value_head() {
    tch::manual_seed(3);
    let (q, k, v) =
        (Tensor::randn([2, 6, 4, 8], FLOAT), Tensor::randn([2, 2, 5, 8], FLOAT), Tensor::randn([2, 2, 5, 8], FLOAT));
    let shared = attend(&q, &k, &v, None).unflatten(-1, [6, 8]);
    for head in 0..6 {
        let group = head / 3;
        let one = |x: &Tensor, index| x.narrow(1, index, 1);
        let alone = attend(&one(&q, head), &one(&k, group), &one(&v, group), None);
        assert!(largest_difference(&shared.select(2, head), &alone) < 1e-6, "head {head}");
    }
}

#[test]
fn rotation_depends_on_relative_positions_only() {
    tch::manual_seed(4);
    let (q, k) = (Tensor::randn([1, 1, 1, 16], FLOAT), Tensor::randn([1, 1, 1, 16], FLOAT));
    let logit = |query: i64, key: i64| {
        let turned = |x: &Tensor, position| Rope::new(&positions(position, position + 1), 16, 1e4).rotate(x);
        (turned(&q, query) * turned(&k, key)).sum(Kind::Float).double_value(&[])
    };
    assert!((logit(7, 3) - logit(104, 100)).abs() < 1e-4);
    assert!((logit(7, 3) - logit(3, 7)).abs() > 1e-2);
    assert!(Rope::new(&positions(0, 1), 16, 1e4).rotate(&q).equal(&q));
}
