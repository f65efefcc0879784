//! Tar entries as duplicity on Python 3.8 and later writes them.

const BLOCK: usize = 512;

fn put(header: &mut [u8; BLOCK], at: usize, text: &[u8]) {
    header[at..at + text.len()].copy_from_slice(text);
}

/// Appends an entry. `kind` is the tar type, '0' or '5'; a deleted one has no metadata.
pub(crate) fn entry(out: &mut Vec<u8>, name: &str, kind: u8, mtime: Option<u64>, data: &[u8]) {
    header(out, name, kind, mtime, data.len());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// The zeros after `length` bytes of data.
pub(crate) fn padding(length: usize) -> &'static [u8] {
    &[0; BLOCK][..length.next_multiple_of(BLOCK) - length]
}

/// Appends the header of an entry with `size` bytes of data.
pub(crate) fn header(out: &mut Vec<u8>, name: &str, kind: u8, mtime: Option<u64>, size: usize) {
    assert!(name.len() < 100);
    let mode = match (mtime, kind) {
        (None, _) => 0,
        (Some(_), b'5') => 0o755,
        (Some(_), _) => 0o644,
    };
    let mut header = [0; BLOCK];
    put(&mut header, 0, name.as_bytes());
    put(&mut header, 100, format!("{mode:07o}\0").as_bytes());
    put(&mut header, 108, b"0000000\0");
    put(&mut header, 116, b"0000000\0");
    put(&mut header, 124, format!("{size:011o}\0").as_bytes());
    put(&mut header, 136, format!("{:011o}\0", mtime.unwrap_or(0)).as_bytes());
    put(&mut header, 148, b"        ");
    header[156] = kind;
    put(&mut header, 257, b"ustar\x0000");
    if mtime.is_some() {
        put(&mut header, 265, b"root");
        put(&mut header, 297, b"root");
    }
    put(&mut header, 329, b"0000000\0");
    put(&mut header, 337, b"0000000\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
}

/// The zeros that end an archive of `length` bytes.
pub(crate) fn end(length: u64) -> Vec<u8> {
    let all = (length + 1024).next_multiple_of(10_240);
    vec![0; usize::try_from(all - length).unwrap()]
}
