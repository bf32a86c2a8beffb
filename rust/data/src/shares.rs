//! Which fraction of the training samples each source has, from the weights of all.

use hlrp_schema::SourceWeight;

/// The fractions of all sources, in the order of their weights; they sum up to 1.
///
/// Fixed weights are fractions; what they leave is divided among the others in proportion to their sizes, equally where all of these are 0.
/// Where fixed weights leave nothing, or nothing else takes the rest, they are divided by their sum.
pub(crate) fn shares(weights: &[SourceWeight], sizes: &[u64]) -> Vec<f64> {
    let takes_rest = |weight: &SourceWeight| *weight == SourceWeight::Proportionate;
    let sum: f64 = weights.iter().map(|weight| weight.fixed_share()).sum();
    let num_rest = weights.iter().filter(|weight| takes_rest(weight)).count();
    let rest_size: u64 = weights.iter().zip(sizes).filter(|(weight, _)| takes_rest(weight)).map(|(_, size)| size).sum();
    let rest = if num_rest == 0 { 0.0 } else { (1.0 - sum).max(0.0) };
    let scale = if sum > 0.0 { (1.0 - rest) / sum } else { 0.0 };
    let share = |(weight, size): (&SourceWeight, &u64)| match weight {
        SourceWeight::Share(share) => share * scale,
        SourceWeight::Proportionate if rest_size == 0 => rest / num_rest as f64,
        SourceWeight::Proportionate => rest * *size as f64 / rest_size as f64,
    };
    weights.iter().zip(sizes).map(share).collect()
}

/// What to say where fixed weights leave nothing to the other sources.
pub(crate) fn warning(weights: &[SourceWeight]) -> Option<String> {
    let sum: f64 = weights.iter().map(|weight| weight.fixed_share()).sum();
    (sum >= 1.0 && weights.contains(&SourceWeight::Proportionate))
        .then(|| format!("the weights of the sources sum up to {sum} (>= 1.0): sources without a weight are not drawn"))
}

#[cfg(test)]
mod tests {
    use super::{shares, warning};
    use hlrp_schema::SourceWeight::{self, Proportionate, Share};

    fn close(weights: &[SourceWeight], sizes: &[u64], wanted: &[f64]) -> bool {
        let shares = shares(weights, sizes);
        shares.len() == wanted.len() && shares.iter().zip(wanted).all(|(share, wanted)| (share - wanted).abs() < 1e-4)
    }

    #[test]
    fn sources_without_a_weight_count_by_their_size() {
        assert!(close(&[Proportionate; 3], &[1000; 3], &[1.0 / 3.0; 3]));
        assert!(close(&[Proportionate; 3], &[1000, 2000, 1000], &[0.25, 0.5, 0.25]));
        assert!(close(&[Proportionate], &[7], &[1.0]));
        assert!(close(&[Proportionate; 2], &[0, 0], &[0.5, 0.5]), "nothing is known of their sizes");
        assert!(close(&[Proportionate; 2], &[0, 10], &[0.0, 1.0]));
    }

    #[test]
    fn weights_are_fractions_and_the_others_share_the_rest() {
        assert!(close(&[Share(0.3), Share(0.5), Share(0.2)], &[1000; 3], &[0.3, 0.5, 0.2]));
        assert!(close(&[Share(0.3), Proportionate, Proportionate], &[500, 1000, 2000], &[0.3, 0.2333, 0.4667]));
        assert!(close(&[Share(0.2), Share(0.3), Proportionate], &[1000; 3], &[0.2, 0.3, 0.5]));
        assert!(close(&[Share(0.0), Proportionate], &[10, 10], &[0.0, 1.0]));
    }

    #[test]
    fn weights_without_a_rest_are_divided_by_their_sum() {
        assert!(close(&[Share(1.0), Share(2.0)], &[10, 10], &[1.0 / 3.0, 2.0 / 3.0]));
        assert!(close(&[Share(0.03), Share(0.03)], &[10, 1000], &[0.5, 0.5]));
        assert!(close(&[Share(5.0)], &[10], &[1.0]));
        assert_eq!(warning(&[Share(1.0), Share(2.0)]), None);
    }

    #[test]
    fn weights_that_leave_nothing_to_the_others_are_a_warning() {
        assert!(close(&[Share(0.6), Share(0.5), Proportionate], &[10; 3], &[0.5454, 0.4545, 0.0]));
        assert!(close(&[Share(0.6), Share(0.4), Proportionate], &[10; 3], &[0.6, 0.4, 0.0]));
        for (weights, sum) in [([0.6, 0.5], "1.1"), ([0.5, 0.5], "1")] {
            let weights = [Share(weights[0]), Share(weights[1]), Proportionate];
            let text = warning(&weights).unwrap_or_default();
            assert!(text.contains(&format!("sum up to {sum} (>= 1.0)")), "{text}");
        }
    }
}
