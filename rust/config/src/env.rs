//! Every environment variable that the project reads.

/// The folder of the configuration tree, where `--config-dir` does not name one.
pub const CONFIG_DIR: &str = "HLRP_CONFIG_DIR";
