//! Suggestions for a word that was mistyped.

/// Upper bound of the bytes of a word that is compared.
const MAX_LEN: usize = 255;

/// Upper bound of the words that are compared.
const MAX_WORDS: usize = 10_000;

/// Returns the one of `known` that is most similar to `typed`, if it is similar enough to be meant.
pub(super) fn most_similar<T: AsRef<[u8]>>(typed: &[u8], known: impl IntoIterator<Item = T>) -> Option<T> {
    let max = (typed.len() / 3).clamp(1, 3);
    let distances = known.into_iter().take(MAX_WORDS).filter_map(|word| {
        let distance = distance(&plain(typed), &plain(word.as_ref()), max)?;
        Some((distance, word))
    });
    distances.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// `word` without the differences that do not count: letter case, and `-` and `_`.
fn plain(word: &[u8]) -> Vec<u8> {
    word.iter().filter(|b| !matches!(b, b'-' | b'_')).map(u8::to_ascii_lowercase).collect()
}

/// The number of bytes to insert, remove, replace or exchange with their neighbours to turn `a` into `b`; `None` above `max`.
pub(super) fn distance(a: &[u8], b: &[u8], max: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > max || a.len() > MAX_LEN || b.len() > MAX_LEN {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let exchanged = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if exchanged {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|distance| *distance <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_recognized() {
        let known = ["store", "stone", "samples", "secret-key"];
        for (typed, meant) in
            [("stroe", "store"), ("stor", "store"), ("Samples", "samples"), ("secretkey", "secret-key")]
        {
            assert_eq!(most_similar(typed.as_bytes(), known), Some(meant), "{typed}");
        }
        for other in ["", "mysql", "x", "a-longer-word"] {
            assert_eq!(most_similar(other.as_bytes(), known), None, "{other}");
        }
    }

    #[test]
    fn the_distance_counts_single_changes() {
        assert_eq!(distance(b"abc", b"abc", 3), Some(0));
        assert_eq!(distance(b"abc", b"acb", 3), Some(1));
        assert_eq!(distance(b"abc", b"xyz", 3), Some(3));
        assert_eq!(distance(b"abc", b"xyz", 2), None);
        assert_eq!(distance(&[b'a'; 300], &[b'a'; 300], 3), None);
    }
}
