//! Columns that are not in a dataset's files.

use serde_json::Value;

/// A column that a dataset gets.
pub struct NewColumn {
    /// Key of the feature.
    pub key: String,
    /// Sizes of one row.
    pub shape: Vec<usize>,
    /// Of every row, row-major.
    pub values: ColumnValues,
    /// Its entry in `meta/stats.json`; none writes none.
    pub statistics: Option<Value>,
}

/// Numbers of a [`NewColumn`].
pub enum ColumnValues {
    /// `float32`.
    Float(Vec<f32>),
    /// `int64`.
    Int(Vec<i64>),
}
