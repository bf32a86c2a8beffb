//! `tf.train.Example` as it is on the wire (protocol buffers), read in place: positions in the record instead of copies.
//!
//! ```text
//! Example  { Features features = 1; }            Features { map<string, Feature> feature = 1; }
//! Feature  { oneof { BytesList = 1; FloatList = 2; Int64List = 3; } }, each a list { repeated value = 1; }, numbers packed
//! ```

use std::{collections::BTreeMap, ops::Range};

/// The type of a feature's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Bytes,
    Floats,
    Ints,
}

/// One field of a message: its number and its value.
enum Value {
    Varint(u64),
    /// Content of a length-delimited field.
    Content(Range<usize>),
    Fixed(Range<usize>),
}

/// Reads a number of 7 bits per byte at `at`, which moves behind it.
fn varint(bytes: &[u8], at: &mut usize, end: usize) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).filter(|_| *at < end).ok_or("ends within a number")?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("has a number of more than 64 bits".into())
}

/// Calls `take` for each field of the message in `range`.
fn fields(
    bytes: &[u8],
    range: Range<usize>,
    mut take: impl FnMut(u64, Value) -> Result<(), String>,
) -> Result<(), String> {
    let mut at = range.start;
    while at < range.end {
        let tag = varint(bytes, &mut at, range.end)?;
        let len = match tag & 7 {
            0 => {
                let value = varint(bytes, &mut at, range.end)?;
                take(tag >> 3, Value::Varint(value))?;
                continue;
            }
            1 => 8,
            2 => varint(bytes, &mut at, range.end)?,
            5 => 4,
            other => return Err(format!("has a field of the unknown wire type {other}")),
        };
        let left = (range.end - at) as u64;
        if len > left {
            return Err(format!("has a field of {len} bytes where {left} are left"));
        }
        let content = at..at + len as usize;
        at = content.end;
        take(tag >> 3, if tag & 7 == 2 { Value::Content(content) } else { Value::Fixed(content) })?;
    }
    Ok(())
}

/// The features of an example by name: where the message of each is in `record`.
///
/// # Errors
/// What is wrong with the bytes.
pub(super) fn features(record: &[u8]) -> Result<BTreeMap<&str, Range<usize>>, String> {
    let mut found = BTreeMap::new();
    fields(record, 0..record.len(), |number, value| {
        let (1, Value::Content(features)) = (number, value) else { return Ok(()) };
        fields(record, features, |number, value| {
            let (1, Value::Content(entry)) = (number, value) else { return Ok(()) };
            let (mut key, mut feature) = (0..0, entry.end..entry.end);
            fields(record, entry, |number, value| {
                match (number, value) {
                    (1, Value::Content(range)) => key = range,
                    (2, Value::Content(range)) => feature = range,
                    _ => {}
                }
                Ok(())
            })?;
            let key = std::str::from_utf8(&record[key]).map_err(|_| "has a feature whose name is not UTF-8")?;
            found.insert(key, feature);
            Ok(())
        })
    })?;
    Ok(found)
}

/// The list in the message of a feature in `bytes`: its type and where it is. None in an empty message.
///
/// # Errors
/// What is wrong with the bytes.
pub(super) fn list(bytes: &[u8], feature: Range<usize>) -> Result<Option<(List, Range<usize>)>, String> {
    let mut found = None;
    fields(bytes, feature, |number, value| {
        let kind = [None, Some(List::Bytes), Some(List::Floats), Some(List::Ints)];
        if let (Some(Some(kind)), Value::Content(range)) = (kind.get(number as usize), value) {
            found = Some((*kind, range));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Where the items of a list of bytes are.
pub(super) fn items(bytes: &[u8], list: Range<usize>) -> Result<Vec<Range<usize>>, String> {
    let mut items = Vec::new();
    fields(bytes, list, |number, value| {
        if let (1, Value::Content(range)) = (number, value) {
            items.push(range);
        }
        Ok(())
    })?;
    Ok(items)
}

/// The numbers of a list, packed or not.
pub(super) fn floats(bytes: &[u8], list: Range<usize>) -> Result<Vec<f32>, String> {
    let mut values = Vec::with_capacity(list.len() / 4);
    fields(bytes, list, |number, value| {
        if let (1, Value::Content(range) | Value::Fixed(range)) = (number, value) {
            let chunks = bytes[range].chunks_exact(4);
            if !chunks.remainder().is_empty() {
                return Err("has a list of floats that ends within one".into());
            }
            values.extend(chunks.map(|chunk| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]])));
        }
        Ok(())
    })?;
    Ok(values)
}

/// The numbers of a list, packed or not.
pub(super) fn ints(bytes: &[u8], list: Range<usize>) -> Result<Vec<i64>, String> {
    let mut values = Vec::new();
    fields(bytes, list, |number, value| {
        match (number, value) {
            (1, Value::Varint(value)) => values.push(value.cast_signed()),
            (1, Value::Content(range)) => {
                let mut at = range.start;
                while at < range.end {
                    values.push(varint(bytes, &mut at, range.end)?.cast_signed());
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    /// A length-delimited field.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    #[test]
    fn packed_and_single_numbers_are_the_same_list() {
        let packed = field(3, &field(1, &[5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]));
        let single = field(3, &[8, 5, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        for feature in [packed, single] {
            let (kind, range) = list(&feature, 0..feature.len()).unwrap().unwrap();
            assert_eq!((kind, ints(&feature, range).unwrap()), (List::Ints, vec![5, -1]));
        }
        let (packed, single) = (field(1, &1.5_f32.to_le_bytes()), [&[1 << 3 | 5], &1.5_f32.to_le_bytes()[..]].concat());
        assert_eq!(floats(&packed, 0..packed.len()).unwrap(), [1.5]);
        assert_eq!(floats(&single, 0..single.len()).unwrap(), [1.5]);
    }

    #[test]
    fn features_are_found_by_name_and_damage_is_described() {
        let entry = [field(1, b"steps/a"), field(2, &field(1, &field(1, b"x")))].concat();
        let example = field(1, &field(1, &entry));
        let found = features(&example).unwrap();
        let (kind, range) = list(&example, found["steps/a"].clone()).unwrap().unwrap();
        let items = items(&example, range).unwrap();
        assert_eq!((kind, &example[items[0].clone()]), (List::Bytes, &b"x"[..]));
        let cut = features(&example[..example.len() - 1]).unwrap_err();
        assert!(cut.contains("bytes where"), "{cut}");
        assert!(features(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
        assert_eq!(features(&[0x0f]).unwrap_err(), "has a field of the unknown wire type 7");
    }
}
