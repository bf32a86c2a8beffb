//! Which commit the programs are built from.

/// The commit, and ` with changes` where sources differed from it; none where the sources were in no repository and `HLRP_COMMIT` did not
/// name one.
pub const COMMIT: Option<&str> = match env!("HLRP_BUILT_FROM") {
    "" => None,
    commit => Some(commit),
};
