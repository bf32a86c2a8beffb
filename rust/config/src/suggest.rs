//! "Did you mean ...?"

/// The candidate closest to a mistyped word; none when no candidate is near.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    let (distance, best) = scored.min()?;
    (distance <= 1 + word.chars().count() / 4).then_some(best)
}
