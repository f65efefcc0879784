//! The bytes of the index on disk. They are literal here, so that no change of the format goes unnoticed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::encoding::RecordEncoder;
use super::framed_file::{VERSION, decode_file, encode_file};
use super::record_store::encode_numbers;
use super::segment::{self, Segment};
use super::{Identity, IndexFileKind};

/// Fails unless `bytes` are `expected`, in hexadecimal digits; white space separates the fields.
#[track_caller]
fn assert_bytes(bytes: &[u8], expected: &str) {
    let digits = dupfs_base::hex(bytes);
    let expected = expected.split_whitespace().collect::<String>();
    assert_eq!(
        digits, expected,
        "the format of the index on disk has changed: raise VERSION in index/framed_file.rs (now {VERSION}), so that files \
         of the old format are removed, then update this test"
    );
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn the_bytes_of_a_framed_file_are_stable() {
    let identity = Identity::of(&[b"some", b"parts"]);
    let mut bytes = Vec::new();
    encode_file(&mut bytes, IndexFileKind::Tree.tag(), identity, &mut |out| out.write_all(b"a body")).unwrap();
    assert_bytes(
        &bytes,
        "6475706673494458 02000000 74 d18f36da332b66b372b70fd02399fe45 \
         6120626f6479 \
         0600000000000000 c0e511f539e8ba71",
    );
    let body = decode_file(&mut &bytes[..], bytes.len() as u64, b't', identity, &mut |input, len| {
        let mut body = vec![0; usize::try_from(len).unwrap()];
        input.read_exact(&mut body).ok().map(|()| body)
    });
    assert_eq!(body.as_deref(), Some(&b"a body"[..]));
    assert_eq!(IndexFileKind::Tree.name(identity), "tree-d18f36da332b66b372b70fd02399fe45");
    assert_eq!(IndexFileKind::Description.name(identity), "about-d18f36da332b66b372b70fd02399fe45");
}

#[test]
fn the_bytes_of_a_segment_are_stable() {
    let identity = Identity::of(&[b"some", b"parts"]);
    let keys = [Identity([1; 16]), Identity([1; 16]).with(&[b"more"])];
    let records = [(keys[0], 7, b"first".to_vec()), (keys[1], 0x0102_0304_0506_0708, Vec::new())];
    let file = tempfile::tempfile().unwrap();
    segment::write(&file, identity, records.iter().cloned()).unwrap();
    assert_bytes(
        &content(&file),
        "6475706673494458 02000000 73 d18f36da332b66b372b70fd02399fe45 \
         6669727374 \
         01010101010101010101010101010101 0700000000000000 1d00000000000000 05000000 53aab0161c0f0f37 \
         56aa5682a0d7de4cdaf66bfbee54aa6f 0807060504030201 2200000000000000 00000000 c294d3380580062d \
         2200000000000000 02000000 63a1960066ae2e6e",
    );
    let segment = Segment::open("seg-1".into(), file, identity).unwrap();
    for (key, group, record) in records {
        let entry = segment.find(&key).unwrap();
        assert_eq!((entry.group, segment.read(&entry)), (group, Some(record)));
    }
}

#[test]
fn the_bytes_of_fields_and_lists_are_stable() {
    let mut encoder = RecordEncoder::default();
    encoder.number(0);
    encoder.number(300);
    encoder.number(u64::MAX);
    encoder.signed(-3);
    encoder.signed(64);
    encoder.byte(0xfe);
    encoder.bytes(b"ab");
    encoder.text_after(b"dir/a", b"dir/bc");
    assert_bytes(&encoder.out, "00 ac02 ffffffffffffffffff01 05 8001 fe 02 6162 04 02 6263");
    assert_bytes(&encode_numbers(&BTreeMap::from([(0, 5), (3, 1 << 14), (4095, 0)])), "00 05 03 808001 fc1f 00");
}
