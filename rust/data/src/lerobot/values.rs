//! Arrow arrays to plain values.

use arrow_array::{
    Array, ArrayRef,
    cast::AsArray,
    types::{
        ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
        UInt32Type, UInt64Type,
    },
};
use arrow_schema::DataType;

/// Appends every number of `array` to `out`, row-major, lists flattened, truth values as 0 and 1.
///
/// # Errors
/// The type of a column that does not hold numbers, or that some rows have no value.
pub(crate) fn append_f32(array: &dyn Array, out: &mut Vec<f32>) -> Result<(), String> {
    append(array, out, |value| value as f32)
}

/// As [`append_f32`], in double precision.
pub(crate) fn append_f64(array: &dyn Array, out: &mut Vec<f64>) -> Result<(), String> {
    append(array, out, |value| value)
}

fn append<T>(array: &dyn Array, out: &mut Vec<T>, of: impl Fn(f64) -> T + Copy) -> Result<(), String> {
    if array.null_count() > 0 {
        return Err("has rows without a value".into());
    }
    match array.data_type() {
        DataType::Float32 => primitive::<Float32Type, T>(array, out, |value| of(f64::from(value))),
        DataType::Float64 => primitive::<Float64Type, T>(array, out, of),
        DataType::Int8 => primitive::<Int8Type, T>(array, out, |value| of(f64::from(value))),
        DataType::Int16 => primitive::<Int16Type, T>(array, out, |value| of(f64::from(value))),
        DataType::Int32 => primitive::<Int32Type, T>(array, out, |value| of(f64::from(value))),
        DataType::Int64 => primitive::<Int64Type, T>(array, out, |value| of(value as f64)),
        DataType::UInt8 => primitive::<UInt8Type, T>(array, out, |value| of(f64::from(value))),
        DataType::UInt16 => primitive::<UInt16Type, T>(array, out, |value| of(f64::from(value))),
        DataType::UInt32 => primitive::<UInt32Type, T>(array, out, |value| of(f64::from(value))),
        DataType::UInt64 => primitive::<UInt64Type, T>(array, out, |value| of(value as f64)),
        DataType::Boolean => out.extend(array.as_boolean().values().iter().map(|value| of(u8::from(value).into()))),
        DataType::FixedSizeList(_, width) => {
            let list = array.as_fixed_size_list();
            let start = list.value_offset_at(0);
            return append(&list.values().slice(start, list.len() * *width as usize), out, of);
        }
        DataType::List(_) => {
            let offsets = array.as_list::<i32>().value_offsets();
            let (start, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            return append(&array.as_list::<i32>().values().slice(start, end - start), out, of);
        }
        DataType::LargeList(_) => {
            let offsets = array.as_list::<i64>().value_offsets();
            let (start, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            return append(&array.as_list::<i64>().values().slice(start, end - start), out, of);
        }
        other => return Err(format!("holds {other}, not numbers")),
    }
    Ok(())
}

fn primitive<P: ArrowPrimitiveType, T>(array: &dyn Array, out: &mut Vec<T>, of: impl Fn(P::Native) -> T) {
    let array = array.as_primitive::<P>();
    out.extend(array.values().iter().map(|value| of(*value)));
}

/// The integers of a column.
///
/// # Errors
/// The type of a column that does not hold integers, or the row of a null.
pub(crate) fn ints(array: &ArrayRef) -> Result<Vec<i64>, String> {
    if array.null_count() > 0 {
        return Err("has rows without a value".into());
    }
    match array.data_type() {
        DataType::Int64 => Ok(array.as_primitive::<Int64Type>().values().to_vec()),
        DataType::Int32 => Ok(array.as_primitive::<Int32Type>().values().iter().map(|&value| value.into()).collect()),
        other => Err(format!("holds {other}, not integers")),
    }
}

/// The texts of a column; a null is an empty text.
///
/// # Errors
/// The type of a column that does not hold text.
pub(crate) fn texts(array: &dyn Array) -> Result<Vec<String>, String> {
    let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
    match array.data_type() {
        DataType::Utf8 => Ok(array.as_string::<i32>().iter().map(own).collect()),
        DataType::LargeUtf8 => Ok(array.as_string::<i64>().iter().map(own).collect()),
        DataType::Utf8View => Ok(array.as_string_view().iter().map(own).collect()),
        other => Err(format!("holds {other}, not text")),
    }
}
