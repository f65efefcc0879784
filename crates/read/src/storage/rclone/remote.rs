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
    /// Texts that messages of rclone may contain and that are not shown.
    pub(super) hidden: Vec<Secret>,
}

/// The options of remotes whose values are secret.
const SECRET_OPTIONS: [&str; 5] = ["pass", "key", "token", "sas_url", "auth_token"];
/// The options that name the account, of services whose URLs do not.
const ACCOUNT_OPTIONS: [&str; 10] =
    ["account", "endpoint", "sas_url", "storage_url", "auth", "user", "user_id", "tenant", "tenant_id", "region"];
/// Values of fewer bytes occur in messages by chance.
const MIN_HIDDEN: usize = 4;

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
            hidden: Vec::new(),
        }
    }

    /// Adds an option of the remote.
    pub(super) fn with(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        if SECRET_OPTIONS.contains(&name) {
            // Of a URL the signature, which follows the question mark.
            let url = value.as_ref().iter().position(|byte| *byte == b'?').filter(|_| name == "sas_url");
            self.hide(value.as_ref().get(url.map_or(0, |at| at.saturating_add(1))..).unwrap_or_default());
        }
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

    /// From now on `text` is not shown in messages of rclone.
    pub(super) fn hide(&mut self, text: &[u8]) {
        if text.len() >= MIN_HIDDEN {
            self.hidden.push(Secret::new(text));
            // What contains another text is replaced first.
            self.hidden.sort_by_key(|text| std::cmp::Reverse(text.expose().len()));
        }
    }

    /// A message of rclone without the texts that are not shown.
    pub(super) fn without_hidden(&self, message: &str) -> String {
        let texts = self.hidden.iter().filter_map(|text| std::str::from_utf8(text.expose()).ok());
        texts.fold(message.to_owned(), |message, text| message.replace(text, "..."))
    }

    /// The account, if the URL does not name it: the options that are known of it, without the secret part of a URL.
    pub(super) fn account(&self) -> Option<Secret> {
        let options = self.options.as_ref()?;
        let (_, kind) = options.iter().find(|(name, _)| *name == "type")?;
        if !matches!(kind.expose(), b"azureblob" | b"swift") {
            return None;
        }
        let named = options.iter().filter(|(name, _)| ACCOUNT_OPTIONS.contains(name));
        let part = |(name, value): &(&str, Secret)| {
            let public = value.expose().split(|byte| *byte == b'?').next().unwrap_or_default();
            [name.as_bytes(), b"=", public, b"\0"].concat()
        };
        Some(Secret::new(named.flat_map(part).collect::<Vec<u8>>()))
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
    fn messages_do_not_show_secrets() {
        let remote = RcloneRemote::configured("azureblob", "azure://c", "c")
            .with("account", "shop")
            .with("key", "geheim==")
            .with("token", "abc")
            .with("sas_url", "https://e/x/?sv=1&sig=2");
        let message = "GET https://e/x/c?comp=list&sv=1&sig=2: shop, geheim==, abc";
        assert_eq!(remote.without_hidden(message), "GET https://e/x/c?comp=list&...: shop, ..., abc");
    }

    #[test]
    fn accounts_are_those_of_services_whose_urls_do_not_name_them() {
        let azure = |account: &str, key: &str| {
            RcloneRemote::configured("azureblob", "azure://c", "c").with("account", account).with("key", key).account()
        };
        assert!(azure("a", "x").is_some() && azure("a", "x") == azure("a", "y"), "a new key is no other account");
        assert_ne!(azure("a", "x"), azure("b", "x"));
        let signed = |url: &str| RcloneRemote::configured("azureblob", "", "").with("sas_url", url).account();
        assert_eq!(signed("https://e/x/?sig=1"), signed("https://e/x/?sig=2"));
        assert_ne!(signed("https://e/x/?sig=1"), signed("https://e/y/?sig=1"));
        let swift =
            |auth: &str| RcloneRemote::configured("swift", "", "").with("user", "u").with("auth", auth).account();
        assert_ne!(swift("https://a"), swift("https://b"));
        assert_eq!(RcloneRemote::configured("ftp", "ftp://j@h/a", "a").with("user", "j").account(), None);
    }

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
