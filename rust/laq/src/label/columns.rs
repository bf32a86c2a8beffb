//! The labels of all episodes as columns, and their statistics.

use super::episode::Labeller;
use hlrp_data::formats::{ColumnValues, NewColumn};
use hlrp_schema::policy::label_columns::{CODE_VECTORS, CODES, VALID, VECTORS};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// Quantiles of LeRobot's statistics.
const QUANTILES: [(&str, f64); 5] = [("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)];

/// All new columns.
pub(super) struct Columns {
    pub(super) all: Vec<NewColumn>,
    /// Rows with a label.
    pub(super) num_valid: i64,
}

/// The columns of all rows, 0 where there is no label; `read` returns the labels of the episode at a position. They are in memory.
///
/// # Errors
/// What `read` returns.
pub(super) fn columns(
    labeller: &Labeller<'_>,
    prefix: &str,
    read: impl Fn(usize) -> anyhow::Result<Vec<(String, Tensor)>>,
) -> anyhow::Result<Columns> {
    let num_rows = i64::try_from(labeller.dataset.describe().num_frames)?;
    let valid_N = Tensor::zeros([num_rows], (Kind::Int64, Device::Cpu));
    let mut values: Vec<(&str, Tensor)> = Vec::new();
    for (slot, episode) in labeller.dataset.episodes().iter().enumerate() {
        let anchors = labeller.anchors(episode);
        let (start, len) = (anchors.start as i64, anchors.end.saturating_sub(anchors.start) as i64);
        if len == 0 {
            continue;
        }
        let _ = valid_N.narrow(0, start, len).fill_(1);
        let labels = read(slot)?;
        for name in [VECTORS, CODES, CODE_VECTORS] {
            let Some((_, label)) = labels.iter().find(|(found, _)| found == name) else { continue };
            if !values.iter().any(|(known, _)| *known == name) {
                let shape = [&[num_rows], &label.size()[1..]].concat();
                values.push((name, Tensor::zeros(shape, (label.kind(), Device::Cpu))));
            }
            values
                .iter()
                .filter(|(known, _)| *known == name)
                .for_each(|(_, all)| all.narrow(0, start, len).copy_(label));
        }
    }
    let mut all = Vec::new();
    for (name, tensor) in &values {
        let shape = tensor.size()[1..].iter().map(|size| *size as usize).collect();
        let flat = tensor.flatten(0, -1);
        let is_float = tensor.kind() == Kind::Float;
        let values = match is_float {
            true => ColumnValues::Float(Vec::try_from(&flat)?),
            false => ColumnValues::Int(Vec::try_from(&flat)?),
        };
        let statistics = is_float.then(|| statistics(&tensor.index_select(0, &valid_N.nonzero().squeeze_dim(1))));
        all.push(NewColumn { key: format!("{prefix}.{name}"), shape, values, statistics });
    }
    let num_valid = valid_N.sum(Kind::Int64).int64_value(&[]);
    let values = ColumnValues::Int(Vec::try_from(&valid_N)?);
    all.push(NewColumn { key: format!("{prefix}.{VALID}"), shape: vec![1], values, statistics: None });
    Ok(Columns { all, num_valid })
}

/// Statistics of `values` `[N, …]` over the rows.
fn statistics(values: &Tensor) -> Value {
    let values = values.to_kind(Kind::Double);
    let num_rows = values.size()[0];
    let (sorted, _) = values.sort(0, false);
    let at = |position: f64| {
        let (low, high) = (position.floor(), position.ceil());
        let (low_value, high_value) = (sorted.select(0, low as i64), sorted.select(0, high as i64));
        &low_value + (high_value - &low_value) * (position - low)
    };
    let mut entry = json!({
        "min": nested(&at(0.0)),
        "max": nested(&at((num_rows - 1) as f64)),
        "mean": nested(&values.mean_dim([0].as_slice(), false, Kind::Double)),
        "std": nested(&values.std_dim([0].as_slice(), false, false)),
        "count": [num_rows],
    });
    for (name, quantile) in QUANTILES {
        entry[name] = nested(&at(quantile * (num_rows - 1) as f64));
    }
    entry
}

/// Lists of lists.
fn nested(values: &Tensor) -> Value {
    match values.dim() {
        0 => json!(values.double_value(&[])),
        _ => (0..values.size()[0]).map(|index| nested(&values.select(0, index))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::statistics;
    use tch::Tensor;

    #[test]
    fn statistics_have_the_shape_of_a_row() {
        let values = Tensor::from_slice(&[0.0_f32, 1.0, 4.0, 3.0, 8.0, 5.0]).view([3, 2, 1]);
        let found = statistics(&values);
        assert_eq!(found["mean"], serde_json::json!([[4.0], [3.0]]));
        assert_eq!(found["q10"], serde_json::json!([[0.8], [1.4]]));
        assert_eq!(
            (&found["min"], &found["max"]),
            (&serde_json::json!([[0.0], [1.0]]), &serde_json::json!([[8.0], [5.0]]))
        );
        assert_eq!(found["count"], serde_json::json!([3]));
    }
}
