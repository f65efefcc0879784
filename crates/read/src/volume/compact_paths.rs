//! A list of paths in few bytes: of each only what differs from the one before it. A verification lists all files of a set.

use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};
use dupfs_format::ArchivePath;

/// Paths in the order in which they were added, each with its place among others that are not in the list.
#[derive(Debug, Default)]
pub struct CompactPaths {
    /// Of each path the distance of its place to that of the one before, and the path as the text after that one.
    encoder: RecordEncoder,
    len: usize,
    last: Vec<u8>,
    last_place: u64,
}

impl CompactPaths {
    /// Appends `path`, whose `place` is not before that of the last one.
    pub(super) fn push(&mut self, place: u64, path: &ArchivePath) {
        self.encoder.number(place.saturating_sub(self.last_place));
        self.encoder.text_after(&self.last, path.as_bytes());
        self.last.clear();
        self.last.extend_from_slice(path.as_bytes());
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
        self.encoder.out.capacity() as u64
    }

    /// The paths with their places.
    pub fn iter(&self) -> impl Iterator<Item = (u64, ArchivePath)> + use<'_> {
        let (mut decoder, mut path, mut place) = (RecordDecoder::new(&self.encoder.out), Vec::new(), 0u64);
        std::iter::from_fn(move || {
            place = place.saturating_add(decoder.number()?);
            decoder.text_after(&mut path)?;
            Some((place, ArchivePath::parse(&path).ok()?))
        })
    }
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
