//! What the data says of the policy's vectors: dimensions, and the statistics of the episodes that it learns from.

use crate::normalize::far_outside;
use hlrp_data::{Mixture, VectorStatistics};
use hlrp_schema::TaskDescription;
use hlrp_schema::policy::{DataFacts, FeatureFacts, ProcessorSpec, Scaling};
use hlrp_train::Resumed;

/// State and action, where the data has them.
pub(super) struct Vectors {
    state: Option<VectorStatistics>,
    action: Option<VectorStatistics>,
}

impl Vectors {
    /// Reads the states and actions of every episode in use.
    ///
    /// # Errors
    /// Files that cannot be read, sources whose vectors differ in their dimensions, or a dimension without a finite value.
    pub(super) fn of(data: &Mixture) -> anyhow::Result<Self> {
        Ok(Self { state: data.state_statistics()?, action: data.action_statistics()? })
    }

    /// Dimensions, and statistics: of the training episodes, or those that a resumed run has normalised by so far.
    pub(super) fn facts(&self, resumed: Option<&Resumed>) -> DataFacts {
        let former = resumed.and_then(|resumed| match &resumed.task {
            TaskDescription::Vla(policy) => Some(&policy.processor),
            TaskDescription::Laq(_) => None,
        });
        let facts = |vector: &Option<VectorStatistics>, of: fn(&ProcessorSpec) -> Option<&Scaling>| {
            let VectorStatistics { dim, values, .. } = vector.as_ref()?;
            let kept = former.and_then(of).and_then(|scaling| scaling.statistics.clone());
            Some(FeatureFacts { dim: *dim, statistics: kept.unwrap_or_else(|| values.clone()) })
        };
        DataFacts {
            state: facts(&self.state, |processor| processor.state.as_ref()),
            action: facts(&self.action, |processor| processor.action.as_ref()),
        }
    }

    /// Warns, once for each vector, of values that are far outside the statistics that `processor` scales by.
    pub(super) fn warn_of_far_values(&self, processor: &ProcessorSpec) {
        for (name, vector, scaling) in
            [("state", &self.state, &processor.state), ("action", &self.action, &processor.action)]
        {
            if let Some(warning) = vector.as_ref().zip(scaling.as_ref()).and_then(|(v, s)| far_values(name, v, s)) {
                tracing::warn!("{warning}");
            }
        }
    }
}

/// The warning that names the sources and dimensions whose values are far outside the statistics.
fn far_values(name: &str, vector: &VectorStatistics, scaling: &Scaling) -> Option<String> {
    let of_source = |(source, ranges): &(String, Vec<[f64; 2]>)| {
        let of_dim = |at: usize| format!("{source}[{at}] from {} to {}", ranges[at][0], ranges[at][1]);
        far_outside(scaling, ranges).into_iter().map(of_dim).collect::<Vec<_>>()
    };
    let found: Vec<String> = vector.ranges.iter().flat_map(of_source).collect();
    (!found.is_empty()).then(|| {
        let found = found.join(", ");
        format!(
            "{name} values are far outside the statistics that normalise them: {found}\n\
             hint: check the dataset with `hlrp data check` and leave out the episodes with wrong values \
             (data.sources.<name>.episodes)"
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::far_values;
    use hlrp_data::VectorStatistics;
    use hlrp_schema::policy::{Scaling, ScalingMode};
    use std::collections::BTreeMap;

    #[test]
    fn one_warning_names_every_source_and_dimension_that_is_far_outside() {
        let statistics = |mean: [f64; 3], std: [f64; 3]| {
            BTreeMap::from([("mean".to_owned(), mean.to_vec()), ("std".to_owned(), std.to_vec())])
        };
        // The second dimension is constant.
        let scaling = Scaling {
            mode: ScalingMode::MeanStd,
            dim: Some(3),
            statistics: Some(statistics([0.0, 5.0, 1.0], [1.0, 0.0, 0.1])),
        };
        let vector = |ranges: &[(&str, [[f64; 2]; 3])]| VectorStatistics {
            dim: 3,
            values: BTreeMap::new(),
            ranges: ranges.iter().map(|(name, ranges)| ((*name).to_owned(), ranges.to_vec())).collect(),
        };
        let usual = [[-4.0, 4.0], [5.0, 5.0], [0.0, 2.0]];
        assert_eq!(far_values("state", &vector(&[("a", usual)]), &scaling), None);
        let far = [[-4.0, 4.0], [5.0, 5.5], [0.0, 2000.0]];
        let warning = far_values("state", &vector(&[("a", usual), ("b", far)]), &scaling).unwrap();
        assert!(
            warning.contains("statistics that normalise them: b[1] from 5 to 5.5, b[2] from 0 to 2000\n"),
            "{warning}"
        );
        // The first dimension of this source has no finite value.
        let partial = [[f64::INFINITY, f64::NEG_INFINITY], [5.0, 5.5], [0.0, 2.0]];
        let warning = far_values("state", &vector(&[("c", partial)]), &scaling).unwrap();
        assert!(warning.contains("statistics that normalise them: c[1] from 5 to 5.5\n"), "{warning}");
    }
}
