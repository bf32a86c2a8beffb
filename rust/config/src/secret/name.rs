//! Names that say whether a value is a secret.
//!
//! A name is split into its words (`AWS_SECRET_ACCESS_KEY`, `hfToken`). In upper case, as variables are written, any word decides; otherwise
//! the last one does, because `state_key` and `image_token_id` are not secrets.

/// Words that make a name secret.
const SECRET_WORDS: [&str; 10] =
    ["token", "secret", "password", "passwd", "passphrase", "pat", "credential", "credentials", "netrc", "apikey"];
/// Words before a final `key` that make a name secret; `KEY` in upper case always does.
const SECRET_KEYS: [&str; 8] = ["api", "access", "secret", "private", "auth", "signing", "encryption", "wandb"];
/// Final words of names whose values are 40 hexadecimal digits but not secrets.
const DIGESTS: [&str; 6] = ["commit", "revision", "sha", "sha1", "hash", "digest"];

/// Whether the value under this name of a key, variable or option is a secret. Of a dotted key the last name counts.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.trim_matches(['-', '+', '~', '"', '\'']);
    let name = name.rsplit(['.', '/', '@']).next().unwrap_or(name);
    let is_variable = !name.contains(|char: char| char.is_ascii_lowercase());
    let words = words(name);
    let is_secret = |word: &String| SECRET_WORDS.contains(&word.as_str());
    match words.as_slice() {
        all if is_variable => all.iter().any(|word| is_secret(word) || word == "key"),
        [.., kind, last] if last == "key" => SECRET_KEYS.contains(&kind.as_str()),
        [.., last] => is_secret(last),
        [] => false,
    }
}

/// Whether the value under this name is a digest, which looks like a secret.
pub(super) fn is_digest_name(name: &str) -> bool {
    words(name).last().is_some_and(|word| DIGESTS.contains(&word.as_str()))
}

/// The words of a name in lower case; `_`, `-`, other punctuation and camel case separate them.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for char in name.chars() {
        let is_hump = char.is_ascii_uppercase() && was_lower;
        if !char.is_ascii_alphanumeric() || is_hump {
            words.push(String::new());
        }
        if let (true, Some(word)) = (char.is_ascii_alphanumeric(), words.last_mut()) {
            word.push(char.to_ascii_lowercase());
        }
        was_lower = char.is_ascii_lowercase() || char.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        for name in [
            "WANDB_API_KEY",
            "HF_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_PAT",
            "DB_PASSWORD",
            "NETRC",
            "KEY",
            "MY_TOKEN_2",
            "api_key",
            "wandb.api_key",
            "--hf-token",
            "lerobot.env.SOME_KEY",
            "hfToken",
            "password",
            "+lerobot.env.X_SECRET",
            "private_key",
            "my.pat",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "state_key",
            "data.sources.a.action_key",
            "image_token_id",
            "TOKENIZERS_PARALLELISM",
            "tokenizer",
            "num_tokens",
            "PATH",
            "PWD",
            "key",
            "monkey",
            "MONKEY",
            "model.decoders.token.depth",
            "HLRP_CONFIG_DIR",
            "path",
            "pattern",
            "add_image_special_tokens",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
