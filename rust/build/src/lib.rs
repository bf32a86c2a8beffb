//! Which commit the programs are built from.

/// The commit, and ` with changes` where sources differed from it; none where the sources were in no repository and `HLRP_COMMIT` did not
/// name one.
pub const COMMIT: Option<&str> = if BUILT_FROM.is_empty() { None } else { Some(BUILT_FROM) };

/// What the build script found.
const BUILT_FROM: &str = env!("HLRP_BUILT_FROM");
