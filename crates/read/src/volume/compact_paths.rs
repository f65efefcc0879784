//! A list of paths in few bytes: of each only what differs from the one before it. A verification lists all files of a set.

use dupfs_format::ArchivePath;

/// Paths in the order in which they were added, each with its place among others that are not in the list.
#[derive(Debug, Default)]
pub struct CompactPaths {
    /// Of each path the distance of its place to that of the one before, the number of bytes that it begins with like that one,
    /// the number of its other bytes, and these.
    encoded: Vec<u8>,
    len: usize,
    last: Vec<u8>,
    last_place: u64,
}

impl CompactPaths {
    /// Appends `path`, whose `place` is not before that of the last one.
    pub(super) fn push(&mut self, place: u64, path: &ArchivePath) {
        let bytes = path.as_bytes();
        let shared = self.last.iter().zip(bytes).take_while(|(last, byte)| last == byte).count();
        let rest = bytes.get(shared..).unwrap_or_default();
        put_number(&mut self.encoded, place.saturating_sub(self.last_place));
        put_number(&mut self.encoded, shared as u64);
        put_number(&mut self.encoded, rest.len() as u64);
        self.encoded.extend_from_slice(rest);
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        self.last_place = place;
        self.len = self.len.saturating_add(1);
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there is no path.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory, at most.
    pub(super) fn bytes(&self) -> u64 {
        self.encoded.capacity() as u64
    }

    /// The paths with their places.
    pub fn iter(&self) -> impl Iterator<Item = (u64, ArchivePath)> + use<'_> {
        let (mut rest, mut path, mut place) = (self.encoded.as_slice(), Vec::new(), 0u64);
        std::iter::from_fn(move || {
            place = place.saturating_add(take_number(&mut rest)?);
            path.truncate(usize::try_from(take_number(&mut rest)?).ok()?);
            let len = usize::try_from(take_number(&mut rest)?).ok()?;
            let (own, after) = rest.split_at_checked(len)?;
            path.extend_from_slice(own);
            rest = after;
            Some((place, ArchivePath::parse(&path).ok()?))
        })
    }
}

/// Appends `number` with seven bits in each byte, the lowest first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or_default());
}

/// Takes a number from the front of `bytes`.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_those_that_were_added_and_take_little_memory() {
        let path = |text: &[u8]| ArchivePath::parse(text).unwrap();
        let long = [b'x'; 255];
        let added: Vec<(u64, ArchivePath)> =
            [(0, &b"etc"[..]), (1, b"etc/hosts"), (300, b"etc/hostname"), (70_000, b"a"), (u64::MAX, &long)]
                .map(|(place, text)| (place, path(text)))
                .into_iter()
                .chain([(u64::MAX, ArchivePath::root()), (u64::MAX, path(b"\xff/z"))])
                .collect();
        let mut paths = CompactPaths::default();
        assert!(paths.is_empty() && paths.iter().next().is_none());
        added.iter().for_each(|(place, path)| paths.push(*place, path));
        assert_eq!(paths.len(), added.len());
        assert_eq!(paths.iter().collect::<Vec<_>>(), added);
        let mut many = CompactPaths::default();
        (0..100_000)
            .for_each(|n| many.push(n, &path(format!("home/user/photos/{:04}/{n:06}.jpg", n / 100).as_bytes())));
        assert!(many.bytes() < 3_000_000, "{}", many.bytes());
        assert_eq!(many.iter().last(), Some((99_999, path(b"home/user/photos/0999/099999.jpg"))));
    }
}
