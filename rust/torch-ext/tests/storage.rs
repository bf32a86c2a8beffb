//! A tensor takes over a vector's memory; a snapshot has memory of its own.
#![allow(clippy::unwrap_used)]

use hlrp_torch::{snapshot, tensor_from_vec};
use tch::{Device, Kind, Tensor};

#[test]
fn no_byte_is_copied() {
    let bytes: Vec<u8> = (0..24).collect();
    let address = bytes.as_ptr() as usize;
    let tensor = tensor_from_vec(bytes, &[2, 3, 4]).unwrap();
    assert_eq!(tensor.data_ptr() as usize, address);
    assert_eq!((tensor.kind(), tensor.size()), (Kind::Uint8, vec![2, 3, 4]));
    assert_eq!(tensor.int64_value(&[1, 2, 3]), 23);
}

#[test]
fn the_memory_lives_as_long_as_the_last_tensor_over_it() {
    let view = tensor_from_vec(vec![1.0f32; 1 << 16], &[256, 256]).unwrap().get(255);
    assert_eq!(view.sum(Kind::Float).double_value(&[]), 256.0);
}

#[test]
fn masks_are_bool_tensors() {
    let mask = tensor_from_vec(vec![true, false, true], &[3, 1]).unwrap();
    assert_eq!((mask.kind(), mask.sum(Kind::Int64).int64_value(&[])), (Kind::Bool, 2));
}

#[test]
fn a_shape_that_the_vector_does_not_fill_is_refused() {
    let error = tensor_from_vec(vec![0u8; 5], &[2, 3]).unwrap_err();
    assert!(error.to_string().contains("5 values do not fill the shape [2, 3]"), "{error}");
}

#[test]
fn an_empty_vector_is_an_empty_tensor() {
    assert_eq!(tensor_from_vec(Vec::<f32>::new(), &[0, 3]).unwrap().size(), [0, 3]);
}

#[test]
fn a_snapshot_keeps_the_values_of_its_moment() {
    let mut weight = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).set_requires_grad(true);
    let (transposed, count) = (weight.transpose(0, 1), Tensor::from(7i64));
    let copies = snapshot(&[&weight, &transposed, &count]).unwrap();
    let _ = tch::no_grad(|| weight.fill_(0.0));
    assert_eq!(Vec::<f32>::try_from(copies[0].flatten(0, 1)).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(Vec::<f32>::try_from(copies[1].flatten(0, 1)).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert!(copies[1].is_contiguous() && !copies[0].requires_grad());
    assert_eq!((copies[2].kind(), copies[2].int64_value(&[])), (Kind::Int64, 7));
}
