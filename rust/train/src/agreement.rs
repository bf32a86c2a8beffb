//! What the processes of a run tell each other after every step.

use crate::error::{Result, TrainError};
use hlrp_data::LoadError;
use hlrp_torch::World;
use tch::Tensor;

/// A request to stop, and the number of bad samples: of one process or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Whether any process was asked to stop: all of them stop after the same step.
    pub(crate) is_stop_requested: bool,
    /// Samples that could not be decoded.
    pub(crate) num_bad_samples: u64,
}

impl Agreement {
    /// Combines those of all processes.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn of_all(self, world: &World) -> Result<Self> {
        if world.size() == 1 {
            return Ok(self);
        }
        let num_bad_samples = i64::try_from(self.num_bad_samples).unwrap_or(i64::MAX);
        let sums = Tensor::from_slice(&[i64::from(self.is_stop_requested), num_bad_samples]);
        world.all_reduce(&sums)?;
        let [num_stops, num_bad_samples] = [0, 1].map(|index| sums.int64_value(&[index]).unsigned_abs());
        Ok(Self { is_stop_requested: num_stops > 0, num_bad_samples })
    }
}

/// Refuses to go on with more bad samples than `data.loader.max_bad_samples` allows: the loader of a process counts its own alone.
pub(crate) fn refuse_bad_samples(num_bad: u64, max_bad: u64) -> Result<()> {
    if num_bad <= max_bad {
        return Ok(());
    }
    Err(TrainError::Data(LoadError::TooManyBadSamplesOfAll { num_bad, max_bad }.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use hlrp_track::exit_code;

    #[test]
    fn alone_a_process_agrees_with_itself() {
        let own = Agreement { is_stop_requested: true, num_bad_samples: 3 };
        assert_eq!(own.of_all(&World::single()).unwrap(), own);
    }

    #[test]
    fn bad_samples_of_all_processes_beyond_the_limit_are_an_error_of_the_data() {
        refuse_bad_samples(4, 4).unwrap();
        let error = refuse_bad_samples(5, 4).unwrap_err();
        assert_eq!(exit_code::of(&error, crate::EXIT_CODES), exit_code::DATA);
        assert!(error.to_string().starts_with("5 samples of all processes could not be decoded"), "{error}");
    }
}
