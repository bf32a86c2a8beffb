//! Tensors over memory that Rust allocated, without a copy.
#![allow(unsafe_code)] // hands a vector's memory to the C++ shim together with the means to free it

use crate::{TorchError, ffi};
use std::{
    ffi::{c_int, c_void},
    ptr,
};
use tch::Tensor;

/// Element types of [`tensor_from_vec`].
pub trait BlobElement: private::Sealed + 'static {
    #[doc(hidden)]
    const SHIM_KIND: c_int;
}

impl BlobElement for u8 {
    const SHIM_KIND: c_int = 0;
}
impl BlobElement for bool {
    const SHIM_KIND: c_int = 1;
}
impl BlobElement for f32 {
    const SHIM_KIND: c_int = 2;
}

mod private {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for bool {}
    impl Sealed for f32 {}
}

/// A CPU tensor of `shape` that owns `values` (row-major); the vector is freed with the last tensor over it.
///
/// # Errors
/// A shape with another number of entries than the vector.
pub fn tensor_from_vec<T: BlobElement>(values: Vec<T>, shape: &[usize]) -> Result<Tensor, TorchError> {
    if shape.iter().product::<usize>() != values.len() {
        let message = format!("{} values do not fill the shape {shape:?}", values.len());
        return Err(TorchError::Shape { operation: "tensor_from_vec", message });
    }
    let sizes: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    let mut owner = Box::new(values);
    let data = owner.as_mut_ptr().cast::<c_void>();
    let context = Box::into_raw(owner).cast::<c_void>();
    let mut out = ptr::null_mut();
    // SAFETY: `data` points to `shape`'s number of initialised `T`, laid out as `SHIM_KIND` says, and stays valid until the
    // deleter runs once with `context`. Should the call fail, the vector is leaked rather than freed twice.
    ffi::check("tensor_from_vec", unsafe {
        ffi::hlrp_tensor_over(data, sizes.as_ptr(), sizes.len(), T::SHIM_KIND, drop_vec::<T>, context, &mut out)
    })?;
    Ok(ffi::take_tensor(out))
}

unsafe extern "C" fn drop_vec<T>(context: *mut c_void) {
    // SAFETY: `context` is the `Box<Vec<T>>` that `tensor_from_vec` released, and this is the only call with it.
    drop(unsafe { Box::from_raw(context.cast::<Vec<T>>()) });
}
