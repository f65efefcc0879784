//! The checks of the fuzz target `index`. Each function accepts any bytes and asserts invariants that are true for all
//! of them. The checks of trees and member tables are in `dupfs-read`, beside their formats.

use super::encoding::RecordDecoder;
use super::framed_file::{decode_file, encode_file};
use super::identity::Identity;
use super::record_store::decode_numbers;
use super::segment::decode_table;

/// Framed files: only bytes that `encode_file` writes are accepted.
pub fn fuzz_file(data: &[u8]) {
    let identity = Identity([7; 16]);
    let body = |input: &mut dyn std::io::Read, len: u64| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(input, &mut bytes).ok().filter(|&n| n as u64 == len).map(|_| bytes)
    };
    if let Some(body) = decode_file(&mut { data }, data.len() as u64, b't', identity, &mut { body }) {
        let mut again = Vec::new();
        let written = encode_file(&mut again, b't', identity, &mut |out| out.write_all(&body));
        assert!(written.is_ok() && again == data, "the accepted file differs from its encoding");
    }
}

/// Tables of segments: all records lie within the file.
pub fn fuzz_segment(data: &[u8]) {
    let read = |at: u64, len: usize| {
        let at = usize::try_from(at).ok()?;
        data.get(at..at.checked_add(len)?).map(<[u8]>::to_vec)
    };
    if let Some(entries) = decode_table(data.len() as u64, Identity([7; 16]), read) {
        assert!(entries.iter().all(|entry| entry.end() <= data.len() as u64), "a record lies outside of its file");
    }
}

/// Lists of numbers, and the fields of records.
pub fn fuzz_fields(data: &[u8]) {
    assert!(decode_numbers(data).is_none_or(|numbers| numbers.len() <= data.len()), "more numbers than bytes");
    let (mut decoder, mut text) = (RecordDecoder::new(data), Vec::new());
    while decoder.remaining() > 0 {
        let before = decoder.remaining();
        let decoded = decoder.clone().signed().is_some() | decoder.text_after(&mut text).is_some();
        if !decoded || decoder.remaining() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::encoding::RecordEncoder;
    use crate::index::segment;

    /// `seed` cut at each length, with each bit flipped, and with pieces repeated.
    fn mutations(seed: &[u8]) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = (0..seed.len()).map(|len| seed[..len].to_vec()).collect();
        for at in 0..seed.len() {
            for bit in 0..8 {
                let mut flipped = seed.to_vec();
                flipped[at] ^= 1 << bit;
                all.push(flipped);
            }
            all.push([&seed[..at], &seed[at / 2..]].concat());
            all.push([seed, &seed[..at]].concat());
        }
        all
    }

    #[test]
    fn a_mutated_file_is_not_accepted() {
        let mut seed = Vec::new();
        encode_file(&mut seed, b't', Identity([7; 16]), &mut |out| out.write_all(b"a tree of some kind")).unwrap();
        let accepted = |data: &[u8]| {
            let decode = &mut |_: &mut dyn std::io::Read, _| Some(());
            let mut skip = |input: &mut dyn std::io::Read, len| {
                std::io::copy(input, &mut std::io::sink()).ok()?;
                decode(input, len)
            };
            decode_file(&mut { data }, data.len() as u64, b't', Identity([7; 16]), &mut skip).is_some()
        };
        assert!(accepted(&seed));
        assert!(
            decode_file(&mut &seed[..], seed.len() as u64, b'x', Identity([7; 16]), &mut |_, _| Some(())).is_none()
        );
        for mutated in mutations(&seed).into_iter().filter(|mutated| *mutated != seed) {
            assert!(!accepted(&mutated), "{mutated:?}");
            fuzz_file(&mutated);
        }
    }

    #[test]
    fn a_mutated_segment_is_refused_or_sound() {
        let file = tempfile::tempfile().unwrap();
        let records = (0u8..5).map(|n| (Identity([n; 16]), 9, vec![n; usize::from(n)]));
        segment::write(&file, Identity([7; 16]), records).unwrap();
        let mut seed = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut seed, 0).unwrap();
        for mutated in mutations(&seed) {
            fuzz_segment(&mutated);
        }
    }

    #[test]
    fn mutated_fields_are_refused_or_sound() {
        let mut encoder = RecordEncoder::default();
        for n in [0, 5, 4095 - 5, 1 << 40] {
            encoder.number(n);
        }
        encoder.text_after(b"", b"a/b");
        for mutated in mutations(&encoder.out) {
            fuzz_fields(&mutated);
        }
    }
}
