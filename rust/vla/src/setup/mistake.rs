//! Errors about values of the configuration, as the program reports those.

use crate::VlaError;
use hlrp_config::Problem;
use hlrp_nn::NnError;

/// Keys of a policy's own description that the configuration has under other names; both below `model`.
const NAMES_IN_CONFIG: [(&str, &str); 8] = [
    ("num_expert_layers", "expert.num_layers"),
    ("expert_width_multiplier", "expert.width_multiplier"),
    ("self_attn_every_n_layers", "expert.self_attn_every_n_layers"),
    ("prefix_length", "expert.prefix_length"),
    ("max_state_dim", "state.max_dim"),
    ("action.action_dim", "action.dim"),
    ("latent.code_seq_len", "laq.code_seq_len"),
    ("latent.code_dim", "laq.code_dim"),
];

/// A mistake in the configuration.
pub(super) fn mistake(key: &str, problem: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Problem::new(key, problem, hint).into()
}

/// The value of `key` names a file or folder that cannot be used, as `error` says with its hint.
pub(super) fn mistake_in(key: &str, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    let text = hlrp_track::console::error_text(error, hlrp_train::HINTS);
    let (problem, hint) = text.split_once("\nhint: ").unwrap_or((&text, "give another path"));
    mistake(key, problem, hint)
}

/// Errors about values of the configuration become mistakes in it.
pub(super) fn as_mistake(error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    match error.downcast_ref::<VlaError>() {
        Some(VlaError::Config { key, problem, hint }) => {
            let other_name = NAMES_IN_CONFIG.iter().find(|(own, _)| own == key);
            mistake(&format!("model.{}", other_name.map_or(*key, |(_, name)| name)), problem, hint)
        }
        Some(VlaError::Nn(NnError::Sizes { problem, hint })) => mistake("model.backbone.sizes", problem, hint),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::as_mistake;
    use crate::VlaError;

    #[test]
    fn a_key_is_named_as_the_configuration_has_it() {
        for (own, name) in [
            ("expert_width_multiplier", "model.expert.width_multiplier"),
            ("num_expert_layers", "model.expert.num_layers"),
            ("cameras", "model.cameras"),
        ] {
            let error = as_mistake(VlaError::config(own, "is wrong", "correct it")).to_string();
            assert_eq!(error, format!("{name}: is wrong\nhint: correct it"));
        }
    }
}
