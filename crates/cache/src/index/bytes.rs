//! Numbers, strings and metadata as bytes. Reading takes any bytes: what cannot be read is `None`, never a panic, and
//! nothing is allocated that the input does not hold.

use dupfs_format::{ArchivePath, EntryKind, EntryMeta};

/// Appends to a record.
#[derive(Debug, Default)]
pub struct Writer {
    /// What was written.
    pub out: Vec<u8>,
}

impl Writer {
    /// Appends `value` in as few bytes as it needs, seven bits each.
    pub fn number(&mut self, mut value: u64) {
        while value > 0x7f {
            self.out.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.out.push(low_byte(value));
    }

    /// Appends a number that may be negative; small ones are short.
    pub fn signed(&mut self, value: i64) {
        let folded = (value << 1) ^ (value >> 63);
        self.number(u64::from_ne_bytes(folded.to_ne_bytes()));
    }

    /// Appends one byte.
    pub fn byte(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Appends `bytes` with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// Appends `text` as the number of bytes it shares with the beginning of `before`, and the rest.
    pub fn after(&mut self, before: &[u8], text: &[u8]) {
        let shared = before.iter().zip(text).take_while(|(a, b)| a == b).count();
        self.number(shared as u64);
        self.bytes(text.get(shared..).unwrap_or(&[]));
    }

    /// Appends metadata.
    pub fn meta(&mut self, meta: &EntryMeta) {
        self.owner(meta);
        self.state(meta);
    }

    /// Appends the owner that metadata names.
    pub fn owner(&mut self, meta: &EntryMeta) {
        self.number(meta.uid.into());
        self.number(meta.gid.into());
        self.bytes(&meta.uname);
        self.bytes(&meta.gname);
    }

    /// Appends metadata without the owner.
    pub fn state(&mut self, meta: &EntryMeta) {
        self.number(meta.mode.into());
        self.signed(meta.mtime);
        match &meta.kind {
            EntryKind::File => self.byte(0),
            EntryKind::Dir => self.byte(1),
            EntryKind::Fifo => self.byte(2),
            EntryKind::Symlink(target) => {
                self.byte(3);
                self.bytes(target);
            }
            EntryKind::CharDevice(major, minor) => self.device(4, *major, *minor),
            EntryKind::BlockDevice(major, minor) => self.device(5, *major, *minor),
        }
    }

    fn device(&mut self, tag: u8, major: u32, minor: u32) {
        self.byte(tag);
        self.number(major.into());
        self.number(minor.into());
    }
}

/// The low eight bits.
fn low_byte(value: u64) -> u8 {
    value.to_le_bytes().first().copied().unwrap_or(0)
}

/// An owner as [`Writer::owner`] writes it: user, group, and their names.
pub type OwnerParts = (u32, u32, Box<[u8]>, Box<[u8]>);

/// Takes a record apart.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Number of bytes left: no list of what follows has more items.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(len)?;
        self.rest = tail;
        Some(head)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, tail) = self.rest.split_first()?;
        self.rest = tail;
        Some(first)
    }

    /// A number of [`Writer::number`].
    pub fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number that must fit 32 bits.
    pub fn small(&mut self) -> Option<u32> {
        self.number().and_then(|n| u32::try_from(n).ok())
    }

    /// The number of items that follow, of at least one byte each.
    pub fn count(&mut self) -> Option<usize> {
        self.number().and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= self.left())
    }

    /// A number of [`Writer::signed`].
    pub fn signed(&mut self) -> Option<i64> {
        let folded = self.number()?;
        let half = i64::from_ne_bytes((folded >> 1).to_ne_bytes());
        Some(if folded & 1 == 0 { half } else { !half })
    }

    /// Bytes of [`Writer::bytes`].
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        self.take(len)
    }

    /// Makes `text`, the one before, into that of [`Writer::after`].
    pub fn after(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let shared = usize::try_from(self.number()?).ok().filter(|&n| n <= text.len())?;
        let rest = self.bytes()?;
        text.truncate(shared);
        text.extend_from_slice(rest);
        Some(())
    }

    /// The path in `text`, if it is one in the only form that paths have.
    pub fn path_of(text: &[u8]) -> Option<ArchivePath> {
        ArchivePath::parse(text).ok().filter(|path| path.as_bytes() == text)
    }

    /// Metadata of [`Writer::meta`].
    pub fn meta(&mut self) -> Option<EntryMeta> {
        let owner = self.owner()?;
        self.state(owner)
    }

    /// An owner of [`Writer::owner`].
    pub fn owner(&mut self) -> Option<OwnerParts> {
        Some((self.small()?, self.small()?, self.bytes()?.into(), self.bytes()?.into()))
    }

    /// Metadata of [`Writer::state`], of this owner.
    pub fn state(&mut self, (uid, gid, uname, gname): OwnerParts) -> Option<EntryMeta> {
        let mode = u16::try_from(self.number()?).ok()?;
        let mtime = self.signed()?;
        let kind = match self.byte()? {
            0 => EntryKind::File,
            1 => EntryKind::Dir,
            2 => EntryKind::Fifo,
            3 => EntryKind::Symlink(self.bytes()?.into()),
            4 => EntryKind::CharDevice(self.small()?, self.small()?),
            5 => EntryKind::BlockDevice(self.small()?, self.small()?),
            _ => return None,
        };
        Some(EntryMeta { kind, mode, uid, gid, uname, gname, mtime })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), i64::MAX.unsigned_abs(), u64::MAX];
        let signed = [0, -1, 1, i64::MIN, i64::MAX, -1_700_000_000];
        let mut writer = Writer::default();
        numbers.iter().for_each(|&n| writer.number(n));
        signed.iter().for_each(|&n| writer.signed(n));
        let mut reader = Reader::new(&writer.out);
        assert!(numbers.iter().all(|&n| reader.number() == Some(n)));
        assert!(signed.iter().all(|&n| reader.signed() == Some(n)));
        assert!(reader.is_at_end() && reader.byte().is_none() && reader.number().is_none());
        assert_eq!(Reader::new(&[0xff; 10]).number(), None);
        assert_eq!(Reader::new(&[0x80; 11]).number(), None);
    }

    #[test]
    fn text_shares_the_beginning_of_the_one_before() {
        let texts = ["", "a/b", "a/bc/d", "a/bc", "z"];
        let (mut writer, mut before) = (Writer::default(), "");
        for text in texts {
            writer.after(before.as_bytes(), text.as_bytes());
            before = text;
        }
        let (mut reader, mut text) = (Reader::new(&writer.out), Vec::new());
        for expected in texts {
            reader.after(&mut text).unwrap();
            assert_eq!(text, expected.as_bytes());
        }
        assert!(Reader::new(&[1, 0]).after(&mut Vec::new()).is_none());
        assert!(Reader::new(&[0, 9, 1]).after(&mut Vec::new()).is_none());
    }

    #[test]
    fn metadata_comes_back() {
        let kinds = [
            EntryKind::File,
            EntryKind::Dir,
            EntryKind::Fifo,
            EntryKind::Symlink((*b"to").into()),
            EntryKind::CharDevice(1, 3),
            EntryKind::BlockDevice(8, u32::MAX),
        ];
        for kind in kinds {
            let (uname, gname) = ((*b"user").into(), Box::default());
            let meta = EntryMeta { kind, mode: 0o7777, uid: 1, gid: u32::MAX, uname, gname, mtime: -5 };
            let mut writer = Writer::default();
            writer.meta(&meta);
            assert_eq!(Reader::new(&writer.out).meta(), Some(meta));
            let cut = &writer.out[..writer.out.len() - 1];
            assert_eq!(Reader::new(cut).meta(), None);
        }
    }
}
