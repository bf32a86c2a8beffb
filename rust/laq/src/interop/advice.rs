//! Which overrides give a model the tensors that a file of the predecessor's has.

use tch::Tensor;

/// Tensors that a setting turns on and off.
struct Part {
    prefixes: &'static [&'static str],
    /// The override without these tensors; empty = none.
    without: &'static str,
    /// The override with them; empty = none, as the predecessor has no such part.
    with: &'static str,
}

const PARTS: &[Part] = &[
    part(&["flow_unit."], "model.decoders.flow.unit=image", ""),
    part(&["flow_decoder."], "model.decoders.flow.enabled=false", FLOW),
    part(&["dino_to_features."], "model.decoders.token.target=projected", ""),
    part(&["dino_decoder."], "model.decoders.token.enabled=false", "model.decoders.token.enabled=true"),
    part(
        &["pixel_decoder.", "pixel_to_pixels."],
        "model.decoders.pixel.enabled=false",
        "model.decoders.pixel.enabled=true",
    ),
    part(&["aux_decoder.", "aux_to_pixels."], "model.decoders.aux.enabled=false", "model.decoders.aux.enabled=true"),
    part(&["difference_"], "model.decoders.difference.enabled=false", ""),
    part(&["forward_", "average_encoder."], "model.decoders.forward.enabled=false", ""),
    part(&["dino_encoder."], "model/encoder=pixel", "model/encoder=dinov3_vits16"),
    part(&["vq.slot_embedding"], "model.quantizer.slot_embedding=false", ""),
    part(&["vq.change_norm."], "model.quantizer.normalization=none", ""),
    part(&["vq.recent_changes.samples"], "model.quantizer.kmeans_start=false", ""),
    part(&["vq.code_use", "vq.latent_moments."], "model/quantizer=nsvq", ""),
    part(&["vq.codebooks"], "", "model/quantizer=nsvq"),
];
/// An import reads no teacher: its path only has to be set.
const FLOW: &str = concat!(
    "model.decoders.flow.enabled=true model.decoders.flow.unit=image ",
    "model.decoders.flow.teacher_weights=<weights of RAFT>"
);

const fn part(prefixes: &'static [&'static str], without: &'static str, with: &'static str) -> Part {
    Part { prefixes, without, with }
}

/// The overrides for parts that only one of model and file has, such as a decoder; none where they differ in sizes alone.
pub(super) fn advice(model: &[(String, Tensor)], file: &[(String, Tensor)]) -> Option<String> {
    let has = |tensors: &[(String, Tensor)], part: &Part| {
        tensors.iter().any(|(name, _)| part.prefixes.iter().any(|prefix| name.starts_with(prefix)))
    };
    let needed = |part: &Part| match (has(model, part), has(file, part)) {
        (true, false) => part.without,
        (false, true) => part.with,
        _ => "",
    };
    let mut overrides: Vec<&str> = PARTS.iter().map(needed).filter(|words| !words.is_empty()).collect();
    overrides.dedup();
    (!overrides.is_empty()).then(|| overrides.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn tensors(names: &[&str]) -> Vec<(String, Tensor)> {
        names.iter().map(|name| ((*name).to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu)))).collect()
    }

    #[test]
    fn a_part_that_only_one_of_both_has_is_named_with_its_key() {
        let said = |model: &[&str], file: &[&str]| advice(&tensors(model), &tensors(file));
        let flow = ["flow_decoder.transformer.norm_out.gamma"];
        assert_eq!(said(&flow, &flow), None);
        let with_unit = [flow[0], "flow_unit.mean_square"];
        assert_eq!(said(&with_unit, &flow).as_deref(), Some("model.decoders.flow.unit=image"));
        let other = said(&["vq.code_use"], &["vq.codebooks", "dino_encoder.proj.weight"]);
        assert_eq!(other.as_deref(), Some("model/encoder=dinov3_vits16 model/quantizer=nsvq"));
    }
}
