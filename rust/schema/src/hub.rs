//! Names on the Hugging Face Hub.

use std::path::Path;

/// Whether a path that does not exist can be a name on the Hub: `organisation/name`, and no folder of the first part is here.
pub fn is_hub_name(path: &Path) -> bool {
    let good = |part: &str| {
        part.starts_with(|char: char| char.is_ascii_alphanumeric())
            && part.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char))
    };
    let halves = path.to_str().and_then(|name| name.split_once('/'));
    halves.is_some_and(|(organisation, name)| good(organisation) && good(name) && !Path::new(organisation).exists())
}

#[cfg(test)]
mod tests {
    use super::is_hub_name;
    use std::path::Path;

    #[test]
    fn paths_are_no_names_on_the_hub() {
        for name in ["HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "lerobot/some_policy", "0a/b.c"] {
            assert!(is_hub_name(Path::new(name)), "{name}");
        }
        for path in ["/models/x", "/x", "~/x", "./x", "../x", "models/smol/vlm", "x", "x/", "", "src/x", "a b/c"] {
            assert!(!is_hub_name(Path::new(path)), "{path}");
        }
    }
}
