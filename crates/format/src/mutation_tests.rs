//! The bodies of the fuzz targets, run on pseudo-random mutations of valid inputs. The inputs are the same on every
//! run.

use super::fuzz_entry as fuzz;
use dupfs_test_tar::{TarMagic, TestHeader, pax_record, put, put_entry, put_extension};

/// Mutations per target.
const ROUNDS: usize = 20_000;

/// The pseudo-random generator splitmix64.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}

/// Applies a few edits to one of `seeds`: flipped, replaced, inserted and removed bytes, copied ranges, truncation.
fn mutate(rng: &mut SplitMix64, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds[rng.below(seeds.len())].clone();
    for _ in 0..=rng.below(4) {
        let at = rng.below(data.len());
        let len = rng.below(16).min(data.len() - at);
        match rng.below(7) {
            0 if !data.is_empty() => data[at] ^= 1 << rng.below(8),
            1 if !data.is_empty() => data[at] = [0, 0xff, b'0', b'/', b' ', b'\n', b'.', 0x80][rng.below(8)],
            2 => data.insert(at, rng.next().to_le_bytes()[0]),
            3 => drop(data.drain(at..at + len)),
            4 => {
                let piece = data[at..at + len].to_vec();
                let to = rng.below(data.len());
                data.splice(to..to, piece);
            }
            5 => data.truncate(at),
            _ => {
                let other = &seeds[rng.below(seeds.len())];
                data.extend_from_slice(&other[rng.below(other.len())..]);
            }
        }
    }
    data
}

fn run(target: fn(&[u8]), seeds: &[Vec<u8>], rounds: usize) {
    seeds.iter().for_each(|seed| target(seed));
    let mut rng = SplitMix64(20_170_128);
    for _ in 0..rounds {
        target(&mutate(&mut rng, seeds));
    }
    for len in 0..64 {
        let noise: Vec<u8> = (0..len).map(|_| rng.next().to_le_bytes()[0]).collect();
        target(&noise);
    }
}

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

/// Returns small tar streams with every kind of header.
fn tars(head: &str) -> Vec<Vec<u8>> {
    let signature = b"rs\x016\0\0\x02\0\0\0\0\x08\x0a\xd0\x02\xd8\x63\x48\x1c\x78\xae\x04\xc2\x01";
    let name = |path: &str| format!("{head}/{path}").into_bytes();
    let (mut gnu, mut pax) = (Vec::new(), Vec::new());
    put_entry(&mut gnu, b"snapshot/", b'5', b"");
    put_entry(&mut gnu, &name("a"), b'0', signature);
    put_extension(&mut gnu, b'L', &name(&"n".repeat(150)));
    put(
        &mut gnu,
        TestHeader::new(&name("n"), b'0', 12).bytes(108, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]),
        &signature[..12],
    );
    gnu.resize(gnu.len() + 1024, 0);
    put_extension(&mut pax, b'g', &pax_record(b"comment", b"x"));
    put_extension(&mut pax, b'x', &[pax_record(b"path", &name("\u{e9}")), pax_record(b"mtime", b"12.5")].concat());
    put(&mut pax, TestHeader::new(&name("?"), b'0', 24).magic(TarMagic::Ustar), signature);
    put(&mut pax, TestHeader::new(b"snapshot/l", b'2', 0).bytes(157, b"to"), b"");
    put_entry(&mut pax, b"deleted/x", b'0', b"");
    vec![gnu, pax]
}

/// Corrects the checksum of every block with a tar magic, so that mutations reach the code after the check.
fn fix_checksums(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    for block in out.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let mut header = TestHeader(block.try_into().unwrap());
            block.copy_from_slice(&header.finish());
        }
    }
    out
}

#[test]
fn mutated_names_keep_the_invariants() {
    let seeds = texts(&[
        "duplicity-full.20261122T122614Z.vol12.difftar.gpg",
        "site/duplicity-inc.20261122T122614Z.to.20261122T132614Z.manifest",
        "duplicity-new-signatures.2026-11-22T07:46:32-05:00.to.2026-11-23T07_46_32Z.sigtar.gz",
        "di.towm5d.towm5g.1.dt.g",
        "x_df.towm5d.m",
        "dns.towm5d.towm5g.st.z",
    ]);
    run(fuzz::fuzz_name, &seeds, 10 * ROUNDS);
}

#[test]
fn mutated_manifests_keep_the_invariants() {
    let entry = |n: u32, end: &str| {
        format!("Volume {n}:\n    StartingPath   .  \n    EndingPath     {end}\n    Hash SHA1 {n:040x}\n")
    };
    let plain =
        format!("Hostname vm\nLocaldir \"a\\x20b\"\n{}{}{}", entry(1, "a 16"), entry(2, "a 32"), entry(3, "b  "));
    let seeds = [
        format!("{plain}Filelist 2\n    new      \"a\\x22\"\n    changed  b\n"),
        format!("Filelist 1\n    deleted  a\n{plain}"),
        format!("{plain}{}{}", entry(2, "b"), entry(3, "c/d 2")),
    ];
    run(fuzz::fuzz_manifest, &seeds.map(String::into_bytes), ROUNDS);
}

#[test]
fn mutated_tar_streams_keep_the_invariants() {
    run(fuzz::fuzz_tar, &tars("snapshot"), ROUNDS);
    run(|data| fuzz::fuzz_tar(&fix_checksums(data)), &tars("snapshot"), ROUNDS);
}

#[test]
fn mutated_signature_archives_keep_the_invariants() {
    run(fuzz::fuzz_sigtar, &tars("signature"), ROUNDS / 2);
    run(|data| fuzz::fuzz_sigtar(&fix_checksums(data)), &tars("signature"), ROUNDS);
}

#[test]
fn mutated_volume_names_keep_the_invariants() {
    let seeds =
        texts(&["snapshot/./", "multivol_diff/a/b c/\u{e9}/17", "deleted/x", "diff/x/../y", "multivol_snapshot/./1"]);
    run(fuzz::fuzz_difftar, &seeds, 10 * ROUNDS);
}

#[test]
fn mutated_deltas_keep_the_invariants() {
    let seeds = [
        vec![0x47, 0, 0, 3, 0x0d, 0x40, 0],
        vec![0x03, 1, 2, 3, 0x42, 0, 2, 9, 9, 0x4f, 0, 0, 0, 1, 0, 0, 0, 2, 0x46, 1, 0, 9, 0],
        vec![0x54, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x44, 0, 0, 0, 0, 0, 0, 0, 1, 5, 0],
    ];
    run(fuzz::fuzz_delta, &seeds, 10 * ROUNDS);
}

#[test]
fn mutated_time_strings_keep_the_invariants() {
    let seeds = texts(&[
        "now",
        "1700000000",
        "20240601",
        "1Y2M3W4D5h6m7s",
        "2024-06-01T12:00:00-03:30",
        "2024/6/1",
        "06-01-2024",
        "20240601T123456Z",
        "20240601Z",
    ]);
    run(fuzz::fuzz_timespec, &seeds, 10 * ROUNDS);
}
