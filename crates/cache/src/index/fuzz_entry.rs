//! What the fuzz target of the index runs: each function takes any bytes and asserts what must hold for all of them. Those of
//! trees and member tables are beside their own formats.

use super::bytes::Reader;
use super::file::{read_whole, write_whole};
use super::identity::Identity;
use super::records::parse_numbers;
use super::segment::parse_directory;

/// Files that are read whole: accepted is only what was written.
pub fn fuzz_whole(data: &[u8]) {
    let identity = Identity([7; 16]);
    let body = |input: &mut dyn std::io::Read, len: u64| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(input, &mut bytes).ok().filter(|&n| n as u64 == len).map(|_| bytes)
    };
    if let Some(body) = read_whole(&mut { data }, data.len() as u64, b't', identity, &mut { body }) {
        let mut again = Vec::new();
        let written = write_whole(&mut again, b't', identity, &mut |out| out.write_all(&body));
        assert!(written.is_ok() && again == data, "what was accepted was not written so");
    }
}

/// Directories of segments: records lie within the file.
pub fn fuzz_segment(data: &[u8]) {
    let read = |at: u64, len: usize| {
        let at = usize::try_from(at).ok()?;
        data.get(at..at.checked_add(len)?).map(<[u8]>::to_vec)
    };
    if let Some(entries) = parse_directory(data.len() as u64, Identity([7; 16]), read) {
        assert!(entries.iter().all(|entry| entry.end() <= data.len() as u64), "a record lies beyond its file");
    }
}

/// Lists of numbers, and the fields of records.
pub fn fuzz_fields(data: &[u8]) {
    assert!(parse_numbers(data).is_none_or(|numbers| numbers.len() <= data.len()), "more numbers than bytes");
    let (mut reader, mut text) = (Reader::new(data), Vec::new());
    while reader.left() > 0 {
        let before = reader.left();
        let read = reader.clone().meta().is_some() | reader.after(&mut text).is_some();
        if !read || reader.left() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::bytes::Writer;
    use crate::index::segment;

    /// All cuts, flipped bits and doubled pieces of `seed`.
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
    fn files_read_whole_survive_mutation() {
        let mut seed = Vec::new();
        write_whole(&mut seed, b't', Identity([7; 16]), &mut |out| out.write_all(b"a tree of some kind")).unwrap();
        let accepted = |data: &[u8]| {
            let parse = &mut |_: &mut dyn std::io::Read, _| Some(());
            let mut skip = |input: &mut dyn std::io::Read, len| {
                std::io::copy(input, &mut std::io::sink()).ok()?;
                parse(input, len)
            };
            read_whole(&mut { data }, data.len() as u64, b't', Identity([7; 16]), &mut skip).is_some()
        };
        assert!(accepted(&seed));
        assert!(read_whole(&mut &seed[..], seed.len() as u64, b'x', Identity([7; 16]), &mut |_, _| Some(())).is_none());
        for mutated in mutations(&seed).into_iter().filter(|mutated| *mutated != seed) {
            assert!(!accepted(&mutated), "{mutated:?}");
            fuzz_whole(&mutated);
        }
    }

    #[test]
    fn segments_survive_mutation() {
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
    fn fields_survive_mutation() {
        let mut writer = Writer::default();
        for n in [0, 5, 4095 - 5, 1 << 40] {
            writer.number(n);
        }
        writer.after(b"", b"a/b");
        for mutated in mutations(&writer.out) {
            fuzz_fields(&mutated);
        }
    }
}
