//! The common prefix of byte strings.

/// Bytes compared at once.
const CHUNK: usize = 16;

/// Returns the number of bytes at the start of `a` and `b` that are equal. Consecutive paths of an archive share most of
/// theirs.
pub fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    let chunks = a.chunks_exact(CHUNK).zip(b.chunks_exact(CHUNK)).take_while(|(a, b)| a == b).count();
    let start = chunks.saturating_mul(CHUNK);
    let rest = a.iter().skip(start).zip(b.iter().skip(start)).take_while(|(a, b)| a == b).count();
    start.saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_ends_the_prefix() {
        let text: Vec<u8> = (0..100).collect();
        for len in 0..text.len() {
            assert_eq!(common_prefix_len(&text, &text[..len]), len);
            assert_eq!(common_prefix_len(&text[..len], &text), len);
            let mut other = text.clone();
            other[len] ^= 0x80;
            assert_eq!(common_prefix_len(&text, &other), len);
        }
        assert_eq!(common_prefix_len(&text, &text), text.len());
        assert_eq!(common_prefix_len(b"", b"a"), 0);
    }
}
