//! The URLs of the services that rclone reads, as duplicity's backends read them (docs/STORES.md).

use std::fmt::{self, Write as _};

use super::StorageError;
use super::percent::percent_decode;
use dupfs_base::{ErrorKind, Secret, escape_bytes};

/// A kind of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemoteService {
    /// SFTP.
    Ssh,
    /// FTP in the clear.
    Ftp,
    /// FTP inside TLS from the beginning.
    FtpImplicitTls,
    /// FTP that changes to TLS.
    FtpExplicitTls,
    /// WebDAV over HTTP.
    Webdav,
    /// WebDAV over HTTPS.
    WebdavTls,
    /// A remote of the user's own configuration of rclone.
    Rclone,
    /// Backblaze B2.
    B2,
    /// Azure Blob Storage.
    Azure,
    /// OpenStack Swift.
    Swift,
    /// Swift of OVH (Public Cloud Archive).
    Pca,
    /// Dropbox.
    Dropbox,
    /// Google Drive with a service account.
    GoogleDrive,
    /// MEGA.
    Mega,
}

/// A place that rclone reads.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteLocation {
    pub(super) service: RemoteService,
    scheme: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    /// As it is written; empty for services without a host.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// The directory: relative, or absolute with a slash in front, where the service knows the difference. Of services with
    /// buckets the bucket comes first. Of rclone the whole remote.
    pub(super) dir: String,
    /// The parameters after `?`.
    pub(super) query: Vec<(String, String)>,
}

impl fmt::Debug for RemoteLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteLocation").field(&self.display()).finish()
    }
}

/// Services that rclone reads only from its own configuration, with what to choose in it. OneDrive needs the number and the kind
/// of the drive, Jottacloud a token of rclone's own login, and Box, pCloud and Google a token that rclone may renew: duplicity
/// has none of these. duplicity has no backend for pCloud.
const BY_CONFIGURATION: &[(&str, &str)] = &[
    ("box", ""),
    ("gdata+gdocs", ""),
    ("gdocs", ""),
    ("idrived", ""),
    ("jottacloud", " (with the device Jotta and the mount point Archive, where duplicity writes)"),
    ("onedrive", ""),
    ("pcloud", ""),
    ("pydrive", ""),
    ("pydrive+gdocs", ""),
    ("smb", ""),
];

/// Services that have ended, or that no program reads any more, with the reason.
const GONE: &[(&str, &str)] = &[
    ("ad", "Amazon Drive was closed in 2023"),
    ("acd", "Amazon Drive was closed in 2023"),
    ("cf", "the Rackspace Cloud Files backend needs software that is no longer maintained"),
    ("cf+http", "the Rackspace Cloud Files backend needs software that is no longer maintained"),
    ("cf+hubic", "hubiC was closed in 2023"),
    ("cfpyrax+http", "the Rackspace Cloud Files backend needs software that is no longer maintained"),
    ("copy", "Copy.com was closed in 2016"),
    ("hubic", "hubiC was closed in 2023"),
    ("u1", "Ubuntu One was closed in 2014"),
    ("u1+http", "Ubuntu One was closed in 2014"),
    ("ubuntuone", "Ubuntu One was closed in 2014"),
];

/// Services that neither dupfs nor rclone reads.
const UNREAD: &[&str] = &["hsi", "imap", "imaps", "mf", "slate", "sx", "tahoe", "xorriso"];

/// Options of remotes whose values are shown, unless they contain an `@` or a `=`. That of `remote` may be a description itself.
const SHOWN_OPTIONS: &[&str] = &["endpoint", "host", "port", "provider", "region", "user", "vendor"];

/// The URL in its parts, as Python splits it.
pub(super) struct UrlParts<'a> {
    pub(super) authority: &'a str,
    /// Not decoded.
    pub(super) path: &'a str,
    query: &'a str,
}

impl RemoteLocation {
    /// Parses the text after `scheme:`, if it is one of a service that rclone reads, or that nothing reads. `is_absolute`: a
    /// path after one slash is absolute.
    pub(super) fn parse(scheme: &str, rest: &str, is_absolute: bool) -> Option<Result<Self, StorageError>> {
        let service = match scheme {
            "sftp" | "scp" | "ssh" | "fish" | "rsync" => RemoteService::Ssh,
            "ftp" => RemoteService::Ftp,
            "ftps" => RemoteService::FtpImplicitTls,
            "ftpes" => RemoteService::FtpExplicitTls,
            "webdav" | "dav" | "http" => RemoteService::Webdav,
            "webdavs" | "davs" | "https" => RemoteService::WebdavTls,
            "rclone" => RemoteService::Rclone,
            "b2" => RemoteService::B2,
            "azure" => RemoteService::Azure,
            "swift" => RemoteService::Swift,
            "pca" => RemoteService::Pca,
            "dpbx" => RemoteService::Dropbox,
            "gdrive" => RemoteService::GoogleDrive,
            "mega" | "megav2" | "megav3" => RemoteService::Mega,
            _ => return other_service(scheme).map(Err),
        };
        Some(Self::parse_service(service, scheme, rest, is_absolute))
    }

    fn parse_service(
        service: RemoteService,
        scheme: &str,
        rest: &str,
        is_absolute: bool,
    ) -> Result<Self, StorageError> {
        let invalid = |reason: &str| StorageError::new(ErrorKind::Invalid, &format!("{scheme}://"), reason);
        let parts = UrlParts::split(rest);
        if scheme == "rsync" && rest.contains("::") {
            let reason = "a module of an rsync daemon cannot be read in parts; copy the backup first (rsync -a), or give the \
                          directory on its machine as sftp://";
            return Err(StorageError::new(ErrorKind::Unsupported, "rsync://", reason));
        }
        let (login, place) = parts.authority.rsplit_once('@').map_or((None, parts.authority), |(l, p)| (Some(l), p));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => {
                (decoded(user).ok_or_else(|| invalid("the user is not UTF-8"))?, percent_decode(password))
            }
            None => (String::new(), Vec::new()),
        };
        let path = decoded(parts.path).ok_or_else(|| invalid("the path is not UTF-8 after percent-decoding"))?;
        let mut location = Self {
            service,
            scheme: scheme.to_owned(),
            user: Some(user).filter(|user| !user.is_empty()),
            password: Some(password).filter(|password| !password.is_empty()).map(Secret::new),
            host: String::new(),
            port: None,
            dir: String::new(),
            query: parts.parameters(),
        };
        let below = path.strip_prefix('/').unwrap_or(&path);
        match service {
            RemoteService::Rclone => {
                let whole = format!("{}{path}", parts.authority);
                // rclone does not serve objects under such a name.
                if description(&whole).is_some_and(|(parts, _)| parts.iter().any(|part| part.contains("//"))) {
                    let reason = "the description of a remote in the URL may not contain //; make a remote with rclone config, \
                                  and mount rclone://NAME:directory";
                    return Err(invalid(reason));
                }
                // As duplicity passes it on. The values of a description stay as they are.
                let described = description(&whole).map_or(0, |(_, rest)| whole.len().saturating_sub(rest.len()));
                let (described, rest) = whole.split_at(described);
                (location.user, location.password) = (None, None);
                location.dir = format!("{described}{}", rest.replacen(":/", ":", 1));
                if !location.dir.contains(':') {
                    return Err(invalid("the URL names no remote; write rclone://REMOTE:path"));
                }
                return Ok(location);
            }
            RemoteService::Azure | RemoteService::Swift | RemoteService::Pca | RemoteService::Dropbox => {
                location.dir = format!("{}{path}", parts.authority);
                if service != RemoteService::Dropbox && location.dir.trim_matches('/').is_empty() {
                    return Err(invalid("the URL names no container"));
                }
                return Ok(location);
            }
            RemoteService::B2 => {
                location.dir = format!("{place}{path}");
                if location.user.is_none() {
                    return Err(invalid(
                        "the URL names no key; write b2://KEY_ID:KEY@bucket/path, or without the key and with \
                                        BACKEND_PASSWORD in the environment",
                    ));
                }
                if place.is_empty() {
                    return Err(invalid("the URL names no bucket"));
                }
                return Ok(location);
            }
            RemoteService::Ssh if scheme == "rsync" => {
                // `rsync://host:/relative` has an empty port.
                location.dir =
                    if path.starts_with("//") { path.clone() } else { path.trim_start_matches('/').to_owned() };
            }
            RemoteService::Ssh => location.dir = if is_absolute { format!("/{below}") } else { below.to_owned() },
            RemoteService::Ftp | RemoteService::FtpImplicitTls | RemoteService::FtpExplicitTls => {
                // Without a path lftp changes to the root.
                let absolute = is_absolute || below.is_empty();
                location.dir = if absolute { format!("/{below}") } else { below.to_owned() };
            }
            RemoteService::Webdav | RemoteService::WebdavTls | RemoteService::GoogleDrive | RemoteService::Mega => {
                location.dir = below.to_owned();
            }
        }
        let (host, port) = split_port(place).ok_or_else(|| invalid("the port is not a number"))?;
        (location.host, location.port) = (host.to_owned(), port);
        if location.host.is_empty() {
            return Err(invalid(&format!("the URL names no host; write {scheme}://user@host/path")));
        }
        let is_name =
            |text: &str| !text.starts_with('-') && text.chars().all(|c| !c.is_control() && c != ' ' && c != '"');
        if !is_name(&location.host) || !location.user.as_deref().is_none_or(is_name) {
            return Err(invalid("this is not a name of a user or a host"));
        }
        Ok(location)
    }

    /// As a URL, without the password and other secrets.
    pub fn display(&self) -> String {
        let mut text = format!("{}://", self.scheme);
        if let Some(user) = self.user.as_ref().filter(|_| self.service != RemoteService::B2) {
            let _ = write!(text, "{user}@");
        }
        text.push_str(&self.host);
        if let Some(port) = self.port {
            let _ = write!(text, ":{port}");
        }
        if !self.host.is_empty() {
            text.push('/');
        }
        match self.service {
            RemoteService::Rclone => text.push_str(&without_values(&self.dir)),
            _ => text.push_str(&self.dir),
        }
        escape_bytes(text.as_bytes())
    }

    /// The text that identifies the place, if [`Self::display`] leaves out a part of it. It may have secrets.
    pub(super) fn display_with_secrets(&self) -> Option<Secret> {
        match self.service {
            RemoteService::Rclone => {
                Some(&*self.dir).filter(|dir| without_values(dir) != *dir).map(|dir| Secret::new(dir.as_bytes()))
            }
            RemoteService::GoogleDrive => {
                let [drive, folder] =
                    ["driveID", "myDriveFolderID"].map(|name| self.parameter(name).unwrap_or_default());
                Some(Secret::new([drive.as_bytes(), b"\0", folder.as_bytes()].concat()))
            }
            _ => None,
        }
    }

    /// The options in the description of a remote of rclone whose values are not shown.
    pub(super) fn hidden_options(&self) -> Vec<(&str, &str)> {
        let (parts, _) = description(&self.dir).filter(|_| self.service == RemoteService::Rclone).unwrap_or_default();
        let options = parts.into_iter().filter_map(|part| part.split_once('='));
        options.filter(|(name, value)| !is_shown(name, value)).collect()
    }

    /// The value of the parameter `name`.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// The parts of the description of a remote of rclone, as `:ftp,host=h,pass=x:dir` or `NAME,port=1:dir` have, and the rest from
/// the colon in front of the directory. `None` for a remote that has only a name.
fn description(remote: &str) -> Option<(Vec<&str>, &str)> {
    let (mut parts, mut start, mut quote, mut closed) = (Vec::new(), 0, None, None);
    for (at, letter) in remote.char_indices() {
        let before = remote.get(start..at)?;
        let begins_value = || before.split_once('=').is_some_and(|(_, value)| value.is_empty());
        let ended = closed.take();
        match (letter, quote) {
            (_, Some(open)) if letter == open => (quote, closed) = (None, Some(open)),
            // As for rclone, a quote within a value is a character of it, and a doubled one within quotes too.
            ('"' | '\'', None) if begins_value() || ended == Some(letter) => quote = Some(letter),
            // The colon at the beginning is not the one in front of the directory.
            (',' | ':', None) if at > 0 => {
                parts.push(before);
                if letter == ':' {
                    let is_described = remote.starts_with(':') || parts.len() > 1;
                    return is_described.then_some((parts, remote.get(at..)?));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(remote.get(start..)?);
    (remote.starts_with(':') || parts.len() > 1).then_some((parts, ""))
}

/// A remote of rclone as it is shown. The values in its description may be passwords and keys.
fn without_values(remote: &str) -> String {
    let Some((parts, rest)) = description(remote) else { return remote.to_owned() };
    let parts: Vec<_> = parts.into_iter().map(shown_option).collect();
    format!("{}{rest}", parts.join(","))
}

/// An option in the description of a remote, without its value unless that is one to be shown.
fn shown_option(option: &str) -> String {
    match option.split_once('=') {
        Some((name, value)) if !is_shown(name, value) => format!("{name}=..."),
        _ => option.to_owned(),
    }
}

/// Returns true if the option `name` of a remote of rclone is shown with its value.
fn is_shown(name: &str, value: &str) -> bool {
    SHOWN_OPTIONS.contains(&name) && !value.contains(['@', '='])
}

/// The failure for a scheme of a service that is not read.
fn other_service(scheme: &str) -> Option<StorageError> {
    let unsupported = |reason: String| Some(StorageError::new(ErrorKind::Unsupported, &format!("{scheme}://"), reason));
    if let Some((_, choice)) = BY_CONFIGURATION.iter().find(|(known, _)| *known == scheme) {
        return unsupported(format!(
            "its account cannot be taken over from duplicity: make a remote with rclone config{choice}, and mount \
             rclone://NAME:/directory"
        ));
    }
    if let Some((_, reason)) = GONE.iter().find(|(known, _)| *known == scheme) {
        return unsupported(format!("{reason}; if a copy of the backup exists, give its place"));
    }
    UNREAD
        .contains(&scheme)
        .then(|| unsupported("unsupported; copy the backup's files to a directory first".to_owned()))?
}

impl<'a> UrlParts<'a> {
    /// Splits the text after the colon of the scheme.
    pub(super) fn split(rest: &'a str) -> Self {
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let Some(rest) = rest.strip_prefix("//") else { return Self { authority: "", path: rest, query } };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self { authority, path, query }
    }

    /// The parameters after `?`.
    pub(super) fn parameters(&self) -> Vec<(String, String)> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter_map(|(name, value)| Some((decoded(name)?, decoded(&value.replace('+', " "))?))).collect()
    }
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(percent_decode(text)).ok()
}

/// Splits `host:port`; `None` if the port is not a number. An empty port is none. An IPv6 address is in brackets.
fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    match place.rsplit_once(':') {
        Some((host, "")) => Some((host, None)),
        Some((host, port)) if !port.ends_with(']') => Some((host, Some(port.parse().ok()?))),
        _ => Some((place, None)),
    }
}

#[cfg(test)]
#[path = "remote_location/tests.rs"]
mod tests;
