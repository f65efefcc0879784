//! The URLs of backups, in every form that duplicity 0.6 to 3.x accepts (docs/S3.md, "URLs", and docs/STORES.md).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::endpoint_host::{host_of, is_aws};
use super::percent::percent_decode;
use super::{MultiLocation, RemoteLocation, StorageError};
use dupfs_base::{ErrorKind, escape_bytes};

/// The host of Google Cloud Storage.
pub(super) const GOOGLE_STORAGE: &str = "storage.googleapis.com";

/// The location of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory, absolute or relative to the working directory.
    Local(PathBuf),
    /// A prefix in a bucket.
    S3(S3Location),
    /// A place that rclone reads.
    Remote(RemoteLocation),
    /// Several stores.
    Multi(MultiLocation),
}

/// A prefix in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket, with its upper and lower case letters.
    pub bucket: String,
    /// The common prefix of the keys: empty, or with a trailing slash.
    pub prefix: String,
    /// The prefix as duplicity reads the URL, if that differs: a `%2F` in it separates directories, and empty ones are left
    /// out. It is used if nothing is at the prefix.
    pub duplicity_prefix: Option<String>,
    /// The service as `host[:port]`, if the URL names it (the form of duplicity up to 0.8.22).
    pub host: Option<String>,
    /// The other reading of `s3://a.b/c`, which may be host and bucket or bucket and prefix. It is tried if this one fails.
    pub alternative: Option<Box<S3Location>>,
    /// True if the URL has a user or a password, which are not used, as in duplicity.
    pub has_credentials: bool,
    /// Remarks about the URL for the user, one line each.
    pub notes: Vec<String>,
}

/// The meaning of `s3://a/b`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum S3UrlStyle {
    /// The form of `a` decides, or else the first reading that works.
    #[default]
    Auto,
    /// `s3://host[:port]/bucket/prefix`, duplicity up to 0.8.22.
    Old,
    /// `s3://bucket/prefix`, duplicity since 0.8.23.
    New,
}

impl S3UrlStyle {
    /// Every style.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Old, Self::New];

    /// The word for the style in `--s3-url-style`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Old => "old",
            Self::New => "new",
        }
    }
}

impl fmt::Display for S3UrlStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The options that affect the meaning of a URL.
#[derive(Clone, Debug, Default)]
pub struct UrlOptions {
    /// `--s3-url-style`.
    pub style: S3UrlStyle,
    /// `--s3-endpoint-url`, as given.
    pub endpoint_url: Option<String>,
}

impl Location {
    /// The location as a URL, without user and password.
    pub fn display_without_secrets(&self) -> String {
        match self {
            Self::Local(path) if path.is_absolute() => {
                format!("file://{}", escape_bytes(path.as_os_str().as_encoded_bytes()))
            }
            Self::Local(path) => escape_bytes(path.as_os_str().as_encoded_bytes()),
            Self::S3(s3) => s3.display(),
            Self::Remote(remote) => remote.display(),
            Self::Multi(multi) => multi.display(),
        }
    }
}

impl S3Location {
    /// As a URL: `s3://bucket/prefix`, or `s3://host/bucket/prefix` if the URL named the host.
    pub fn display(&self) -> String {
        let host = self.host.as_ref().map(|h| format!("{h}/")).unwrap_or_default();
        let text = format!("s3://{host}{}/{}", self.bucket, self.prefix);
        escape_bytes(text.trim_end_matches('/').as_bytes())
    }
}

/// [`parse_url_with`] the default options.
///
/// # Errors
/// As [`parse_url_with`].
pub fn parse_url(text: &str) -> Result<Location, StorageError> {
    parse_url_with(text, &UrlOptions::default())
}

/// Parses a URL or a path. Does no I/O.
///
/// # Errors
/// [`ErrorKind::Invalid`] for text that is no location, [`ErrorKind::Unsupported`] for an unsupported scheme. The error never
/// contains a password.
pub fn parse_url_with(text: &str, options: &UrlOptions) -> Result<Location, StorageError> {
    let Some(UrlScheme { scheme, rest, is_gio }) = UrlScheme::split(text) else {
        if text.is_empty() {
            return Err(invalid(text, "the URL is empty; give s3://bucket/prefix, sftp://host/directory or a path"));
        }
        return Ok(Location::Local(PathBuf::from(text)));
    };
    if let Some(remote) = RemoteLocation::parse(&scheme, rest, is_gio) {
        return remote.map(Location::Remote);
    }
    if scheme == "multi" {
        return MultiLocation::parse(rest).map(Location::Multi);
    }
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    match scheme.as_str() {
        "file" => parse_file(rest),
        "s3" | "boto+s3" | "boto3+s3" | "s3+http" => parse_s3(&scheme, rest, options).map(Location::S3),
        "gs" | "boto+gs" => parse_gs(&scheme, rest, options).map(Location::S3),
        _ => {
            let reason = "unsupported scheme; supported are s3, sftp, scp, rsync (over ssh), ftp, ftps, webdav, webdavs, rclone, \
                          b2, azure, swift, gs, dpbx, gdrive, mega, multi, file and plain paths; for other services make a remote \
                          with rclone config, and mount rclone://NAME:/directory";
            Err(StorageError::new(ErrorKind::Unsupported, &format!("{scheme}://"), reason))
        }
    }
}

/// A bucket of Google Cloud Storage, which has the protocol of S3 too.
fn parse_gs(scheme: &str, rest: &str, options: &UrlOptions) -> Result<S3Location, StorageError> {
    let endpoint_url = options.endpoint_url.clone();
    let options = UrlOptions { style: S3UrlStyle::New, endpoint_url: endpoint_url.clone() };
    let location = parse_s3(scheme, rest, &options)?;
    Ok(match endpoint_url {
        Some(_) => location,
        None => S3Location { host: Some(GOOGLE_STORAGE.to_owned()), ..location },
    })
}

fn invalid(object: &str, reason: &str) -> StorageError {
    StorageError::new(ErrorKind::Invalid, object, reason)
}

/// The scheme of a URL, and what follows.
struct UrlScheme<'a> {
    /// In lower case, without the prefixes that name the program of duplicity.
    scheme: String,
    /// The text after the colon.
    rest: &'a str,
    /// True with the prefix `gio+`: a path after one slash is absolute.
    is_gio: bool,
}

impl<'a> UrlScheme<'a> {
    /// `None` for a path. Unknown schemes require the `//`, because a path may contain a colon.
    fn split(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_'));
        let mut scheme = scheme.to_ascii_lowercase();
        let mut is_gio = false;
        while let Some((prefix, inner)) = scheme.split_once('+')
            && matches!(prefix, "par2" | "gio" | "lftp" | "pexpect" | "ncftp" | "paramiko")
        {
            is_gio |= prefix == "gio";
            scheme = inner.to_owned();
        }
        let known = matches!(scheme.as_str(), "file" | "s3" | "boto+s3" | "boto3+s3" | "s3+http");
        (is_scheme && (known || rest.starts_with("//"))).then_some(Self { scheme, rest, is_gio })
    }
}

/// Parses `///abs`, `//rel` and `/abs`. `////abs` is relative, as in duplicity: the leading `///` and one slash are dropped.
fn parse_file(rest: &str) -> Result<Location, StorageError> {
    let path = match rest.strip_prefix("//") {
        Some(path) => match path.strip_prefix("//") {
            Some(relative) => relative.trim_start_matches('/'),
            None => path,
        },
        None if rest.starts_with('/') => rest,
        None => return Err(invalid(&format!("file:{rest}"), "write file:///absolute/path, file://relative or a path")),
    };
    if path.is_empty() {
        return Err(invalid("file://", "the URL names no directory"));
    }
    Ok(Location::Local(PathBuf::from(OsString::from_vec(percent_decode(path)))))
}

fn parse_s3(scheme: &str, rest: &str, options: &UrlOptions) -> Result<S3Location, StorageError> {
    let shown = format!("{scheme}://");
    if !rest.starts_with('/') {
        return Err(invalid(&shown, "write s3://bucket/prefix"));
    }
    let (netloc, path) = match rest.strip_prefix("//") {
        Some(after) => after.split_once('/').unwrap_or((after, "")),
        None => ("", rest),
    };
    let mut notes = Vec::new();
    let (has_credentials, netloc) = netloc.rsplit_once('@').map_or((false, netloc), |(_, host)| (true, host));
    let port = netloc.rsplit_once(':').map(|(_, port)| port).filter(|_| !netloc.ends_with(']'));
    if port.is_some_and(|port| !port.bytes().all(|byte| byte.is_ascii_digit())) {
        // A secret with a slash in it would be taken for a bucket, and shown.
        let reason = "what follows the : is no port; credentials do not belong in the URL, but in AWS_ACCESS_KEY_ID and \
                      AWS_SECRET_ACCESS_KEY";
        return Err(invalid(&shown, reason));
    }
    let mut parts = Vec::new();
    for part in std::iter::once(netloc).chain(path.split('/')).filter(|part| !part.is_empty()) {
        let part = String::from_utf8(percent_decode(part));
        parts.push(part.map_err(|_| invalid(&shown, "the path is not UTF-8 after percent-decoding"))?);
    }
    let new = |notes: &[String]| reading(None, &parts, notes);
    let old = |notes: &[String]| reading(parts.first().cloned(), parts.get(1..).unwrap_or_default(), notes);
    let names_host = !netloc.is_empty() && scheme != "s3+http" && scheme != "boto3+s3";
    let reading = match choose(netloc, parts.len(), names_host, scheme == "boto+s3", options) {
        S3UrlReading::New => {
            if options.style == S3UrlStyle::Auto && names_host && netloc.contains('.') && parts.len() > 1 {
                notes.push(format!("reading {netloc} as the bucket (--s3-url-style=old: as the host of the service)"));
            }
            new(&notes)
        }
        S3UrlReading::Old => {
            notes.push(format!("reading {netloc} as the host of the service (--s3-url-style=new: as the bucket)"));
            old(&notes)
        }
        S3UrlReading::NewElseOld => either(new(&notes), old(&notes)),
        S3UrlReading::OldElseNew => either(old(&notes), new(&notes)),
    };
    let reading = reading.map(|reading| S3Location { has_credentials, ..reading });
    reading.ok_or_else(|| invalid(&shown, "the URL names no bucket; write s3://bucket/prefix"))
}

fn either(first: Option<S3Location>, other: Option<S3Location>) -> Option<S3Location> {
    first.map(|first| S3Location { alternative: other.map(Box::new), ..first })
}

fn reading(host: Option<String>, parts: &[String], notes: &[String]) -> Option<S3Location> {
    let (bucket, rest) = parts.split_first()?;
    let prefix: String = rest.iter().map(|part| format!("{part}/")).collect();
    let names = prefix.split('/').filter(|name| !name.is_empty());
    let duplicity_prefix = Some(names.map(|name| format!("{name}/")).collect()).filter(|other| *other != prefix);
    Some(S3Location {
        bucket: bucket.clone(),
        prefix,
        duplicity_prefix,
        host,
        alternative: None,
        has_credentials: false,
        notes: notes.to_vec(),
    })
}

/// The readings of an S3 URL, in the order in which they are tried.
enum S3UrlReading {
    New,
    Old,
    NewElseOld,
    OldElseNew,
}

/// Decides between the readings of an S3 URL. The name of a bucket contains no colon and is no IP address, so those are hosts under
/// every scheme.
fn choose(netloc: &str, parts: usize, names_host: bool, prefers_host: bool, options: &UrlOptions) -> S3UrlReading {
    let host = host_of(netloc);
    let is_ip = host.parse::<std::net::Ipv4Addr>().is_ok() || netloc.starts_with('[');
    if options.style == S3UrlStyle::New || netloc.is_empty() {
        return S3UrlReading::New;
    }
    if options.style == S3UrlStyle::Old || netloc.contains(':') || is_ip {
        return S3UrlReading::Old;
    }
    if !names_host || parts < 2 {
        return S3UrlReading::New;
    }
    if is_aws(host) {
        return S3UrlReading::Old;
    }
    if let Some(endpoint) = &options.endpoint_url {
        return if host_of(endpoint).eq_ignore_ascii_case(host) { S3UrlReading::Old } else { S3UrlReading::New };
    }
    match (host.contains('.') || host.eq_ignore_ascii_case("localhost"), prefers_host) {
        (false, _) => S3UrlReading::New,
        (true, false) => S3UrlReading::NewElseOld,
        (true, true) => S3UrlReading::OldElseNew,
    }
}

#[cfg(test)]
#[path = "url/tests.rs"]
mod tests;
