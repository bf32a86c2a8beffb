//! What is wrong with a model whose codes carry nothing.

use super::table::{CODES, RANDOM_CODES, partial_metric};
use std::collections::BTreeMap;

/// The least gain of the decoders from a pair's own codes, in units of the loss of predicting no change.
const MIN_CODE_GAIN: f64 = 0.02;
/// Variance of the changes over their mean squared distance to the codes, below which the codes say nothing about them.
const MIN_SIGNAL_TO_NOISE: f64 = 1.1;

/// One sentence with a remedy if the codes carry no more than those of random weights do, by the metrics of a validation: where there are
/// actions by their partial R², elsewhere by what the decoders gain from the codes and by how near the codes are to the changes.
pub(crate) fn verdict(metrics: &BTreeMap<String, f64>) -> Option<String> {
    let gain = metrics.iter().filter(|(name, _)| name.starts_with("val/") && name.ends_with("_code_gain"));
    let gain = gain.map(|(_, gain)| *gain).reduce(f64::max);
    let ratio = metrics.get("val/latent_signal_to_noise").copied();
    let partial = |name: &str| metrics.get(&partial_metric(name)).copied();
    let has_no_gain = gain.is_some_and(|gain| gain < MIN_CODE_GAIN);
    let has_no_signal = ratio.is_some_and(|ratio| ratio < MIN_SIGNAL_TO_NOISE);
    let finding = match (partial(CODES.0), partial(RANDOM_CODES.0)) {
        (Some(codes), Some(random)) if codes > random => return None,
        (Some(codes), Some(random)) => format!(
            "the codes say no more about the actions than codes of random weights do: {codes:.2} of what frame t leaves open, \
             {random:.2} for random weights"
        ),
        _ if has_no_gain => format!(
            "the decoders hardly use the codes: with another pair's codes their loss rises by {:.3} of what predicting no \
             change costs",
            gain.unwrap_or_default()
        ),
        _ if has_no_signal => {
            format!("the codes say nothing about the changes: signal/noise is {:.2}", ratio.unwrap_or_default())
        }
        _ => return None,
    };
    let remedy = if has_no_signal {
        "set model.quantizer.normalization=batch_norm and choose model/quantizer=ema_vq: the changes are far smaller than the codes are apart"
    } else if has_no_gain {
        "let a decoder predict the change and not the frame (model.decoders.difference or flow), or raise the change per pair \
         (data.request.image_deltas)"
    } else {
        "train for longer, or raise model.decoders.<name>.motion_weight and the change per pair (data.request.image_deltas)"
    };
    Some(format!("{finding}\nhint: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::verdict;
    use std::collections::BTreeMap;

    fn of(metrics: &[(&str, f64)]) -> Option<String> {
        verdict(&metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn with_actions_the_partial_r2_beside_random_codes_decides() {
        let codes = |codes, gain| {
            of(&[
                ("val/probe_codes_partial_r2", codes),
                ("val/probe_random_codes_partial_r2", 0.13),
                ("val/pixel_code_gain", gain),
            ])
        };
        assert_eq!(codes(0.14, 0.0), None, "a decoder that gains nothing, but codes that carry actions");
        let text = codes(0.03, 0.0).unwrap_or_default();
        assert!(text.contains("0.03") && text.contains("0.13") && text.contains("model.decoders.difference"), "{text}");
        let text = codes(0.03, 0.3).unwrap_or_default();
        assert!(text.contains("motion_weight"), "{text}");
    }

    #[test]
    fn without_actions_the_gain_of_the_best_decoder_and_the_noise_decide() {
        let gains = [("val/pixel_code_gain", 0.001), ("val/difference_code_gain", 0.15)];
        assert_eq!(of(&gains), None);
        assert!(of(&gains[..1]).unwrap_or_default().contains("hardly use the codes"));
        let text = of(&[("val/difference_code_gain", 0.15), ("val/latent_signal_to_noise", 0.9)]).unwrap_or_default();
        assert!(text.contains("signal/noise is 0.90") && text.contains("batch_norm"), "{text}");
        assert_eq!(of(&[("val/loss", 1.0)]), None, "a continuous latent has no codes to judge");
    }
}
