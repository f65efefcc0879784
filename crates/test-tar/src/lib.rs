//! Input for tests. The writer of tar streams sets each field separately, so that tests can also write invalid streams;
//! [`mutations`] changes valid input of any kind.

// A test that writes beyond the header block fails by panic.
#![allow(clippy::indexing_slicing)]

/// The magic of a tar dialect.
#[derive(Clone, Copy, Debug)]
pub enum TarMagic {
    /// GNU tar's.
    Gnu,
    /// POSIX's.
    Ustar,
}

/// A header block that a test builds.
#[derive(Clone, Debug)]
pub struct TestHeader(pub [u8; 512]);

impl TestHeader {
    /// Creates the header of a regular file with mode 0644, uid and gid 1000, mtime 1700000000.
    pub fn new(name: &[u8], type_flag: u8, size: u64) -> Self {
        let mut block = [0; 512];
        let cut = name.len().min(100);
        block[..cut].copy_from_slice(&name[..cut]);
        block[156] = type_flag;
        let mut header = Self(block);
        header.octal(100, 8, 0o644).octal(108, 8, 1000).octal(116, 8, 1000).octal(124, 12, size);
        header.octal(136, 12, 1_700_000_000).bytes(257, b"ustar  \0").bytes(265, b"www").bytes(297, b"web");
        header
    }

    /// Sets the magic.
    pub fn magic(&mut self, magic: TarMagic) -> &mut Self {
        match magic {
            TarMagic::Gnu => self.bytes(257, b"ustar  \0"),
            TarMagic::Ustar => self.bytes(257, b"ustar\x0000"),
        }
    }

    /// Writes `bytes` at an offset.
    pub fn bytes(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Writes a number of `width` octal digits and a NUL at an offset.
    pub fn octal(&mut self, at: usize, width: usize, value: u64) -> &mut Self {
        let text = format!("{value:0digits$o}\0", digits = width - 1);
        self.bytes(at, text.as_bytes())
    }

    /// Sets the checksum and returns the block.
    pub fn finish(&mut self) -> [u8; 512] {
        self.0[148..156].copy_from_slice(b"        ");
        let sum: u32 = self.0.iter().map(|&b| u32::from(b)).sum();
        self.bytes(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// Appends a header and its data, padded to a block.
pub fn put(out: &mut Vec<u8>, header: &mut TestHeader, data: &[u8]) {
    out.extend_from_slice(&header.finish());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// Appends an entry without special fields.
pub fn put_entry(out: &mut Vec<u8>, name: &[u8], type_flag: u8, data: &[u8]) {
    put(out, &mut TestHeader::new(name, type_flag, data.len() as u64), data);
}

/// Appends an extension header (`x`, `g`, `L`, `K`).
pub fn put_extension(out: &mut Vec<u8>, type_flag: u8, data: &[u8]) {
    let name: &[u8] = if matches!(type_flag, b'L' | b'K') { b"././@LongLink" } else { b"././@PaxHeader" };
    put_entry(out, name, type_flag, data);
}

/// Returns one PAX record.
pub fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while len.to_string().len() + body != len {
        len += 1;
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Pseudo-random numbers, the same on every run.
struct Numbers(u64);

impl Numbers {
    fn new() -> Self {
        Self(88_172_645_463_325_252)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`; 0 if `end` is 0.
    fn below(&mut self, end: usize) -> usize {
        // The remainder is less than a `usize`.
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }
}

/// Returns pseudo-random bytes, the same on every run. They do not compress, so a compressed file contains them
/// verbatim.
pub fn noise(len: usize) -> Vec<u8> {
    let mut numbers = Numbers::new();
    (0..len).map(|_| numbers.next().to_le_bytes()[3]).collect()
}

/// Calls `target` with `seed`, and then `rounds` times with the seed after some of its bits were flipped and some of its bytes
/// replaced, removed, cut off or repeated. The inputs are the same on every run.
pub fn mutations(seed: &[u8], rounds: usize, target: fn(&[u8])) {
    let mut numbers = Numbers::new();
    target(seed);
    for _ in 0..rounds {
        let mut data = seed.to_vec();
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(data.len());
            match numbers.below(5) {
                0 => data.truncate(at.max(1)),
                1 => data[at] = numbers.below(256).to_le_bytes()[0],
                2 => data[at] ^= 1 << numbers.below(8),
                3 => drop(data.drain(at..(at + numbers.below(8)).min(data.len()))),
                _ => {
                    let piece = data[at..(at + numbers.below(60)).min(data.len())].to_vec();
                    data.extend_from_slice(&piece);
                }
            }
            if data.is_empty() {
                break;
            }
        }
        target(&data);
    }
}
