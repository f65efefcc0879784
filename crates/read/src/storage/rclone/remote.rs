//! The place that rclone reads, in rclone's own terms.

use std::fmt;

use super::MAX_CONNECTIONS;
use dupfs_base::Secret;

/// The name of the remote that is configured by the environment.
pub(super) const NAME: &str = "DUPFS";

/// A remote of rclone, and a directory in it.
#[derive(Clone)]
pub(super) struct RcloneRemote {
    /// The remote with its colon, and the root: `dupfs:`, `dupfs:/`, `NAME:`.
    pub(super) fs: String,
    /// The directory below it: without slashes at the ends, empty for the root.
    pub(super) dir: String,
    /// The URL without secrets.
    pub(super) url: String,
    /// The options of the remote by their names in rclone's documentation; `None` if it is one of the user's configuration.
    pub(super) options: Option<Vec<(&'static str, Secret)>>,
    /// The lines of known hosts. rclone reads them from its standard input.
    pub(super) known_hosts: Option<Vec<u8>>,
    /// Upper bound of the objects that are read at once.
    pub(super) max_streams: u32,
    /// A command that makes the same connection and reports why it fails, if rclone does not.
    pub(super) diagnosis: Option<Vec<String>>,
}

impl fmt::Debug for RcloneRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RcloneRemote").field("url", &self.url).field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl RcloneRemote {
    /// The remote that `options` describe, of the type `kind`, at `dir`, which is one below its root, or with a `/` in
    /// front an absolute one.
    pub(super) fn configured(kind: &str, url: &str, dir: &str) -> Self {
        let fs = if dir.starts_with('/') { "dupfs:/" } else { "dupfs:" };
        Self {
            fs: fs.to_owned(),
            dir: trimmed(dir),
            url: url.to_owned(),
            options: Some(vec![("type", Secret::new(kind.as_bytes()))]),
            known_hosts: None,
            max_streams: MAX_CONNECTIONS,
            diagnosis: None,
        }
    }

    /// Adds an option of the remote.
    pub(super) fn with(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        if let Some(options) = &mut self.options {
            options.push((name, Secret::new(value.as_ref())));
        }
        self
    }

    /// Adds an option of the remote if it has a value.
    pub(super) fn with_some(self, name: &'static str, value: Option<impl AsRef<[u8]>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Returns true if the service may send an object from its beginning when a part is requested: a server of WebDAV, or a
    /// remote of the user, whose service is not known.
    pub(super) fn may_ignore_ranges(&self) -> bool {
        let kind = self.options.as_ref().map(|options| options.iter().find(|(name, _)| *name == "type"));
        kind.flatten().is_none_or(|(_, kind)| kind.expose() == b"webdav")
    }

    /// The path of the object or directory `name` below the root of the remote.
    pub(super) fn path(&self, name: &str) -> String {
        let name = name.trim_end_matches('/');
        match (self.dir.is_empty(), name.is_empty()) {
            (true, _) => name.to_owned(),
            (false, true) => self.dir.clone(),
            (false, false) => format!("{}/{name}", self.dir),
        }
    }
}

/// A directory without slashes at its ends, and without the empty parts and those that mean the same directory.
pub(super) fn trimmed(dir: &str) -> String {
    dir.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_root_of_the_remote() {
        let of = |dir: &str| {
            let remote = RcloneRemote::configured("sftp", "", dir);
            (remote.fs.clone(), remote.path(""), remote.path("x"), remote.path("sub/"))
        };
        let four = |a: &str, b: &str, c: &str, d: &str| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned());
        assert_eq!(of(""), four("dupfs:", "", "x", "sub"));
        assert_eq!(of("."), four("dupfs:", "", "x", "sub"));
        assert_eq!(of("a//b/"), four("dupfs:", "a/b", "a/b/x", "a/b/sub"));
        assert_eq!(of("/"), four("dupfs:/", "", "x", "sub"));
        assert_eq!(of("/a/b"), four("dupfs:/", "a/b", "a/b/x", "a/b/sub"));
    }
}
