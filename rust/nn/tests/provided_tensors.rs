//! A model over tensors that the caller has.

use hlrp_nn::{Init, LayerNorm, Linear, Store};
use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

/// A linear layer after a norm, and a buffer.
struct Model {
    store: Store,
    norm: LayerNorm,
    linear: Linear,
}

impl Model {
    fn over(store: Store) -> Self {
        let root = store.root();
        let norm = LayerNorm::new(&root.child("norm"), 3);
        let linear = Linear::new(&root.child("linear"), 3, 2, true);
        let _count = root.buffer("count", &Tensor::zeros([1], (Kind::Int64, Device::Cpu)));
        Self { norm, linear, store }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.linear.forward(&self.norm.forward(x))
    }
}

fn tensors() -> HashMap<String, Tensor> {
    let model = Model::over(Store::new(Device::Cpu));
    model.store.state().into_iter().map(|(name, tensor)| (name, tensor.detach())).collect()
}

fn copies(tensors: &HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// The error of a model over `tensors`.
fn refusal(tensors: HashMap<String, Tensor>) -> String {
    Model::over(Store::over(tensors)).store.finish().expect_err("the tensors do not fit").to_string()
}

#[test]
fn the_model_computes_with_the_very_tensors_of_the_caller() {
    let provided = tensors();
    let mut bias = provided["linear.bias"].set_requires_grad(true);
    let model = Model::over(Store::over(copies(&provided)));
    model.store.finish().expect("these are the model's tensors");
    let x = Tensor::randn([4, 3], FLOAT);
    let before = model.forward(&x);
    before.sum(Kind::Float).backward();
    assert_eq!(bias.grad(), Tensor::full([2], 4.0, FLOAT));
    tch::no_grad(|| {
        let _ = bias.g_add_scalar_(1.0);
    });
    let moved = model.forward(&x) - before;
    assert!(moved.allclose(&Tensor::ones([4, 2], FLOAT), 0.0, 1e-6, false));
}

#[test]
fn the_caller_decides_about_gradients() {
    let model = Model::over(Store::over(tensors()));
    assert!(model.store.parameters().iter().all(|(_, tensor)| !tensor.requires_grad()));
    assert_eq!(model.store.buffers().len(), 1);
}

#[test]
fn mismatches_are_named() {
    let mut missing = tensors();
    missing.remove("linear.bias");
    assert!(refusal(missing).starts_with("weights do not fit the model: 1 missing (linear.bias), 0 unknown ()"));

    let mut unknown = tensors();
    unknown.insert("linear.scale".into(), Tensor::ones([1], FLOAT));
    assert!(refusal(unknown).contains("0 missing (), 1 unknown (linear.scale)"));

    let mut misshaped = tensors();
    misshaped.insert("norm.weight".into(), Tensor::ones([4], FLOAT));
    assert!(refusal(misshaped).contains("weight `norm.weight` is Float [4], the model needs Float [3]"));

    let mut half = tensors();
    half.insert("norm.weight".into(), Tensor::ones([3], (Kind::Half, Device::Cpu)));
    assert!(refusal(half).contains("weight `norm.weight` is Half [3], the model needs Float [3]"));
}

#[test]
fn a_castable_map_may_be_bfloat16() {
    let over = |store: Store| (Linear::castable(&store.root().child("map"), 3, 2, true), store);
    let (_, fresh) = over(Store::new(Device::Cpu));
    assert_eq!(fresh.castable(), ["map.weight", "map.bias"]);
    let halves = || fresh.state().into_iter().map(|(name, tensor)| (name, tensor.detach().to_kind(Kind::BFloat16)));
    let (map, store) = over(Store::over(halves().collect()));
    store.finish().expect("both formats fit");
    assert_eq!(map.forward(&Tensor::ones([1, 3], (Kind::BFloat16, Device::Cpu))).kind(), Kind::BFloat16);

    let strict = Store::over(halves().collect());
    let _map = Linear::new(&strict.root().child("map"), 3, 2, true);
    let refusal = strict.finish().expect_err("this one is float32").to_string();
    assert!(refusal.contains("weight `map.weight` is BFloat16 [2, 3], the model needs Float [2, 3]"), "{refusal}");
}

#[test]
fn a_sketch_has_names_and_shapes_and_no_memory() {
    let huge = 1 << 20;
    let store = Store::sketch();
    let _weight = store.root().child("table").parameter("weight", &[huge, huge], Init::Normal);
    let names: Vec<_> = store.parameters().into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
    assert_eq!(names, [("table.weight".to_owned(), vec![huge, huge])]);
    assert!(Model::over(Store::sketch()).store.finish().is_ok());
}
