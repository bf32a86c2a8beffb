//! Rows of all processes.

use hlrp_torch::World;
use tch::Tensor;

/// The rows `[N,C]` of all processes, `[sum of N,C]` in the order in which one process alone would have them: the samples of a validation go
/// to the processes in turn. Each process may have another N.
///
/// # Errors
/// A process that is gone.
pub fn gather_rows(world: &World, rows_NC: &Tensor) -> anyhow::Result<Tensor> {
    let num_rows = rows_NC.size()[0];
    let counts = world.all_gather(&Tensor::from(num_rows).to_device(rows_NC.device()))?;
    let counts = counts.iter().map(i64::try_from).collect::<Result<Vec<_>, _>>()?;
    let most = counts.iter().copied().max().unwrap_or(num_rows);
    let padded_NC = rows_NC.new_zeros([most, rows_NC.size()[1]], (rows_NC.kind(), rows_NC.device()));
    padded_NC.narrow(0, 0, num_rows).copy_(rows_NC);
    let rows_NC = world.all_gather_rows(&padded_NC)?;
    let size = counts.len() as i64;
    let in_turn =
        (0..most).flat_map(|row| counts.iter().enumerate().map(move |(rank, count)| (row, rank as i64, *count)));
    let filled = in_turn.filter(|(row, _, count)| row < count).map(|(row, rank, _)| row * size + rank);
    let filled = Tensor::from_slice(&filled.collect::<Vec<_>>()).to_device(rows_NC.device());
    Ok(rows_NC.index_select(0, &filled))
}

/// The shape of what a validation sums, from a process that has it: one without a batch does not know it. None where no process has.
///
/// # Errors
/// A process that is gone.
pub fn shape_of_all(world: &World, own: Option<&Tensor>) -> anyhow::Result<Option<Vec<i64>>> {
    let own = own.map(|tensor| tensor.size().iter().map(i64::to_string).collect::<Vec<_>>().join(" "));
    let shapes = world.all_gather_text(&own.unwrap_or_default())?;
    let shape = shapes.iter().find(|shape| !shape.is_empty());
    Ok(shape.map(|shape| shape.split(' ').map(str::parse).collect::<Result<_, _>>()).transpose()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use tch::Kind;

    #[test]
    fn alone_the_rows_are_the_own_ones() {
        let rows = Tensor::arange(6, (Kind::Int64, tch::Device::Cpu)).view([3, 2]);
        assert_eq!(gather_rows(&World::single(), &rows).unwrap(), rows);
    }
}
