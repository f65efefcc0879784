//! Tar entries in the two dialects Python writes (FORMAT.md 4.1).

use super::tree::{Kind, Node};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Python up to 3.7.
    Gnu,
    /// Python since 3.8.
    Pax,
}

const BLOCK: usize = 512;

/// The fields of one header. Numbers are unlimited here and may not fit.
struct Header<'a> {
    name: &'a [u8],
    mode: u16,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    typeflag: u8,
    link: &'a [u8],
    uname: &'a [u8],
    gname: &'a [u8],
    device: (u32, u32),
}

fn text(block: &mut [u8], at: usize, width: usize, value: &[u8]) {
    let len = value.len().min(width);
    block[at..at + len].copy_from_slice(&value[..len]);
}

/// `%0*o\0`, or base 256 if that is too narrow.
fn numeric(block: &mut [u8], at: usize, width: usize, value: u64) {
    if value < 8u64.pow(width as u32 - 1) {
        text(block, at, width, format!("{value:0len$o}\0", len = width - 1).as_bytes());
    } else {
        block[at] = 0x80;
        let bytes = value.to_be_bytes();
        let len = (width - 1).min(8);
        block[at + width - len..at + width].copy_from_slice(&bytes[8 - len..]);
    }
}

impl Header<'_> {
    fn block(&self, dialect: Dialect) -> Vec<u8> {
        let mut b = vec![0; BLOCK];
        text(&mut b, 0, 100, self.name);
        numeric(&mut b, 100, 8, self.mode.into());
        numeric(&mut b, 108, 8, self.uid);
        numeric(&mut b, 116, 8, self.gid);
        numeric(&mut b, 124, 12, self.size);
        numeric(&mut b, 136, 12, self.mtime);
        b[148..156].fill(b' ');
        b[156] = self.typeflag;
        text(&mut b, 157, 100, self.link);
        text(&mut b, 257, 8, if dialect == Dialect::Gnu { b"ustar  \0" } else { b"ustar\x0000" });
        text(&mut b, 265, 32, self.uname);
        text(&mut b, 297, 32, self.gname);
        if matches!(self.typeflag, b'3' | b'4') || dialect == Dialect::Pax {
            numeric(&mut b, 329, 8, self.device.0.into());
            numeric(&mut b, 337, 8, self.device.1.into());
        }
        let sum: u32 = b.iter().map(|byte| u32::from(*byte)).sum();
        text(&mut b, 148, 8, format!("{sum:06o}\0").as_bytes());
        b
    }
}

fn helper(name: &[u8], typeflag: u8, data: &[u8], dialect: Dialect) -> Vec<u8> {
    let header = Header {
        name,
        mode: 0,
        uid: 0,
        gid: 0,
        size: data.len() as u64,
        mtime: 0,
        typeflag,
        link: b"",
        uname: b"",
        gname: b"",
        device: (0, 0),
    };
    let mut out = header.block(dialect);
    out.extend_from_slice(data);
    pad(&mut out);
    out
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().div_ceil(BLOCK) * BLOCK, 0);
}

/// Returns the result of Python's `encode("ascii", "replace")` for a name decoded with surrogate escapes.
fn lossy(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in value.utf8_chunks() {
        out.extend(chunk.valid().chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }));
        out.extend(chunk.invalid().iter().map(|_| b'?'));
    }
    out
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let bare = key.len() + value.len() + 3;
    let mut len = bare + 1;
    while bare + len.to_string().len() != len {
        len = bare + len.to_string().len();
    }
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

/// The whole entry `name` with the metadata of `node` (`None`: a `deleted` entry) and `data`, with its helper headers and padding.
pub(crate) fn entry(name: &[u8], node: Option<&Node>, link: &[u8], data: &[u8], dialect: Dialect) -> Vec<u8> {
    let (typeflag, device) = match node.map(|node| &node.kind) {
        None | Some(Kind::File(_)) => (b'0', (0, 0)),
        Some(Kind::Dir) => (b'5', (0, 0)),
        Some(Kind::Symlink(_)) => (b'2', (0, 0)),
        Some(Kind::Fifo) => (b'6', (0, 0)),
        Some(Kind::Char(major, minor)) => (b'3', (*major, *minor)),
        Some(Kind::Block(major, minor)) => (b'4', (*major, *minor)),
    };
    let header = Header {
        name,
        mode: node.map_or(0, |node| node.mode),
        uid: node.map_or(0, |node| node.uid.into()),
        gid: node.map_or(0, |node| node.gid.into()),
        size: data.len() as u64,
        mtime: node.map_or(0, |node| node.mtime as u64),
        typeflag,
        link,
        uname: node.map_or(b"", |node| &node.uname),
        gname: node.map_or(b"", |node| &node.gname),
        device,
    };
    let mut out = match dialect {
        Dialect::Gnu => gnu(&header),
        Dialect::Pax => pax(&header),
    };
    out.extend_from_slice(data);
    pad(&mut out);
    out
}

fn gnu(header: &Header<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for (value, typeflag) in [(header.link, b'K'), (header.name, b'L')] {
        if value.len() > 100 {
            out.extend(helper(b"././@LongLink", typeflag, &[value, b"\0"].concat(), Dialect::Gnu));
        }
    }
    out.extend(header.block(Dialect::Gnu));
    out
}

fn pax(header: &Header<'_>) -> Vec<u8> {
    let mut records: Vec<(&str, Vec<u8>)> = Vec::new();
    let texts = [
        ("path", header.name, 100),
        ("linkpath", header.link, 100),
        ("uname", header.uname, 32),
        ("gname", header.gname, 32),
    ];
    for (key, value, width) in texts {
        if !value.is_ascii() || value.len() > width {
            records.push((key, value.to_vec()));
        }
    }
    let numbers = [("uid", header.uid, 7), ("gid", header.gid, 7), ("mtime", header.mtime, 11)];
    let fits = |value: u64, digits: u32| value < 8u64.pow(digits);
    for (key, value, digits) in numbers {
        if !fits(value, digits) {
            records.push((key, value.to_string().into_bytes()));
        }
    }
    let short = |value: u64, digits: u32| if fits(value, digits) { value } else { 0 };
    let (name, link) = (lossy(header.name), lossy(header.link));
    let (uname, gname) = (lossy(header.uname), lossy(header.gname));
    let plain = Header {
        name: &name,
        link: &link,
        uname: &uname,
        gname: &gname,
        uid: short(header.uid, 7),
        gid: short(header.gid, 7),
        mtime: short(header.mtime, 11),
        ..*header
    };
    let mut out = Vec::new();
    if !records.is_empty() {
        let mut body = Vec::new();
        if records.iter().any(|(_, value)| std::str::from_utf8(value).is_err()) {
            body.extend(record("hdrcharset", b"BINARY"));
        }
        for (key, value) in &records {
            body.extend(record(key, value));
        }
        out.extend(helper(b"././@PaxHeader", b'x', &body, Dialect::Pax));
    }
    out.extend(plain.block(Dialect::Pax));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_record_counts_its_own_length() {
        assert_eq!(record("hdrcharset", b"BINARY"), b"21 hdrcharset=BINARY\n");
        assert_eq!(record("path", b"snapshot/names/latin1-\xe9\xff"), b"33 path=snapshot/names/latin1-\xe9\xff\n");
        for len in 85..105 {
            let made = record("path", &vec![b'x'; len]);
            let length: usize = std::str::from_utf8(&made).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, made.len());
        }
    }

    #[test]
    fn a_user_id_that_does_not_fit_octal_is_base_256() {
        let mut block = vec![0; 8];
        numeric(&mut block, 0, 8, 4_294_967_294);
        assert_eq!(block, [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
    }
}
