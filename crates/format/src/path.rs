//! Paths inside a backup: raw bytes, compared by components as duplicity compares them.

use std::cmp::Ordering;
use std::fmt;

use dupfs_base::escape_path;

/// Upper bound of the bytes of a path in a backup. Linux takes no path of more bytes (PATH_MAX counts the final NUL too),
/// and duplicity reaches every object by its whole path.
pub const MAX_PATH_LEN: usize = 4095;

/// A path inside a backup, relative to the backup's root: components of raw bytes joined by `/`; empty for the root.
///
/// The order is duplicity's (docs/FORMAT.md section 2.1): component by component. So `/` sorts below every other
/// byte, and `x/y` comes before `x!`.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ArchivePath(Box<[u8]>);

/// The reason why bytes are not a path inside a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path has a `..` component, which would leave the tree.
    #[error("the path has a '..' component")]
    Parent,
    /// The path contains a NUL byte, which no file name does.
    #[error("the path contains a NUL byte")]
    Nul,
}

impl ArchivePath {
    /// Returns the root of the backup.
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses `bytes`. Leading, trailing and repeated slashes and `.` components are dropped. `.` alone is the root.
    ///
    /// # Errors
    /// [`PathError`] for `..` components and NUL bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut out = Vec::with_capacity(bytes.len());
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(PathError::Parent),
                name => {
                    if !out.is_empty() {
                        out.push(b'/');
                    }
                    out.extend_from_slice(name);
                }
            }
        }
        Ok(Self(out.into_boxed_slice()))
    }

    /// Returns the bytes, without a leading slash. They are empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Compares the bytes of two paths, as paths are compared.
    pub fn compare_bytes(a: &[u8], b: &[u8]) -> Ordering {
        let differ = a.iter().zip(b.iter()).find(|(a, b)| a != b);
        match differ {
            Some((b'/', _)) => Ordering::Less,
            Some((_, b'/')) => Ordering::Greater,
            Some((a, b)) => a.cmp(b),
            None => a.len().cmp(&b.len()),
        }
    }

    /// Returns true for the root of the backup.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the components from the root down. The root has none.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// Returns the path without its last component. Returns `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        self.0.get(..end).map(|head| Self(head.into()))
    }

    /// Returns the deepest directory of the path, or the path itself, that has at most [`MAX_PATH_LEN`] bytes, and the
    /// component below it. Returns `None` for a path that is short enough.
    pub fn overlong(&self) -> Option<(Self, &[u8])> {
        let over = self.0.get(..=MAX_PATH_LEN)?;
        let end = over.iter().rposition(|&b| b == b'/').unwrap_or(0);
        let dir = self.0.get(..end)?;
        let rest = self.0.get(if end == 0 { 0 } else { end + 1 }..)?;
        Some((Self(dir.into()), rest.split(|&b| b == b'/').next().unwrap_or(rest)))
    }

    /// Returns the path of `name` below this path. Returns `None` unless `name` is a single component.
    pub fn join(&self, name: &[u8]) -> Option<Self> {
        let is_component =
            !name.is_empty() && !matches!(name, b"." | b"..") && !name.iter().any(|b| matches!(b, 0 | b'/'));
        is_component.then(|| {
            if self.is_root() {
                Self(name.into())
            } else {
                Self([&self.0, &b"/"[..], name].concat().into_boxed_slice())
            }
        })
    }

    /// Returns the last component. It is empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or(&[])
    }
}

impl Ord for ArchivePath {
    fn cmp(&self, other: &Self) -> Ordering {
        Self::compare_bytes(&self.0, &other.0)
    }
}

impl PartialOrd for ArchivePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As messages show it; see [`escape_path`].
impl fmt::Display for ArchivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { f.write_str(&escape_path(&self.0)) }
    }
}

impl fmt::Debug for ArchivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> ArchivePath {
        ArchivePath::parse(s.as_bytes()).unwrap()
    }

    #[test]
    fn order_is_by_components_not_by_bytes() {
        // docs/FORMAT.md section 2.1: the order in which duplicity writes
        let written = ["", "x", "x/y", "x/y/z.txt", "x/y.txt", "x!", "x-y"];
        let paths: Vec<_> = written.iter().map(|s| path(s)).collect();
        for (i, a) in paths.iter().enumerate() {
            for (j, b) in paths.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} against {b:?}");
                let tuples: Vec<&[u8]> = a.components().collect();
                assert_eq!(tuples.cmp(&b.components().collect()), i.cmp(&j));
            }
        }
    }

    #[test]
    fn parse_normalises_paths_and_refuses_those_that_leave_the_tree() {
        assert_eq!(path("./a//b/"), path("a/b"));
        assert!(path(".").is_root());
        assert_eq!(ArchivePath::parse(b"a/../b"), Err(PathError::Parent));
        assert_eq!(ArchivePath::parse(b"a\0"), Err(PathError::Nul));
    }

    #[test]
    fn an_overlong_path_is_represented_by_its_deepest_directory() {
        let deep = |len: usize| ArchivePath::parse(&b"d/".repeat(len)[..len]).unwrap();
        assert_eq!(deep(MAX_PATH_LEN).overlong(), None);
        let long = path(&format!("{}/name/below", "d/".repeat(2047).trim_end_matches('/')));
        let (dir, name) = long.overlong().unwrap();
        assert_eq!((dir.as_bytes().len(), name), (4093, &b"name"[..]));
        let (dir, name) = deep(100_001).overlong().map(|(dir, name)| (dir, name.to_vec())).unwrap();
        assert_eq!((dir.as_bytes().len(), name), (MAX_PATH_LEN, b"d".to_vec()));
        let flat = path(&"n".repeat(5000));
        assert_eq!(flat.overlong(), Some((ArchivePath::root(), flat.as_bytes())));
    }

    #[test]
    fn parent_and_name_split_at_the_last_component() {
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), Some(ArchivePath::root()));
        assert_eq!(ArchivePath::root().parent(), None);
        assert_eq!(path("a/b/c").name(), b"c");
    }
}
