//! "Did you mean ...?"

/// The candidate closest to a mistyped word, capitals aside; none when no candidate is near.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
    let scored = candidates.into_iter().map(|candidate| (distance(candidate), candidate));
    let (distance, best) = scored.min()?;
    (distance <= 1 + word.chars().count() / 4).then_some(best)
}
