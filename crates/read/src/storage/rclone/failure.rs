//! The failure of a request to rclone: a message of one line with the remedy, and whether another attempt may succeed.

use std::io;

use super::http::{HttpBody, HttpFailure, PROGRESS_BYTES};
use super::remote::RcloneRemote;
use crate::storage::StorageError;
use dupfs_base::{ErrorKind, escape_bytes};

/// Upper bound of the characters of a message of rclone that are shown.
const MAX_REASON: usize = 300;

/// A failed attempt.
#[derive(Debug)]
pub(super) struct RcloneFailure {
    pub(super) error: StorageError,
    pub(super) cause: RcloneCause,
}

/// The cause of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RcloneCause {
    /// The answer is final.
    Final,
    /// The service is overloaded, failed, or broke off the answer: retry.
    Busy,
    /// There was no answer, or its body stalled: retry.
    NoAnswer,
    /// The host does not exist or refuses connections: retry, but not while the store is being opened.
    NoService,
    /// The connection was closed before it was of use, without a reason: retry. A diagnosis may find the reason.
    Closed,
    /// rclone used a connection that it had kept and that is dead, as after a restart of an FTP server: the next attempt takes
    /// another one.
    Stale,
    /// The object or directory does not exist.
    Absent,
    /// The object has no such part.
    OutOfRange,
}

impl RcloneFailure {
    /// A failure that no retry helps against.
    pub(super) fn last(error: StorageError) -> Self {
        Self { error, cause: RcloneCause::Final }
    }

    /// The answer is invalid or incomplete; another attempt may succeed.
    pub(super) fn broken(object: &str, reason: impl AsRef<str>) -> Self {
        Self { error: StorageError::new(ErrorKind::Io, object, reason), cause: RcloneCause::Busy }
    }

    /// The answer is not one to the request, for `reason`; another attempt may succeed.
    pub(super) fn invalid(object: &str, reason: impl AsRef<str>) -> Self {
        Self::broken(object, format!("the answer of rclone is invalid: {}", reason.as_ref()))
    }

    /// The failure to parse the body of an answer about `object`.
    pub(super) fn of_json(object: &str, error: serde_json::Error, body: &mut HttpBody) -> Self {
        if error.is_data() {
            // rclone gives the same answer again.
            let reason = shown(&format!("the answer of rclone is invalid: {error}"));
            return Self::last(StorageError::new(ErrorKind::Io, object, reason));
        }
        Self::of_transport(object, body.failure(&io::Error::from(error)))
    }

    /// The failure of a request for `object` without an answer, or without all of it.
    pub(super) fn of_transport(object: &str, failure: HttpFailure) -> Self {
        match failure {
            HttpFailure::Stopped(stopped) => Self::last(StorageError::stopped(object, stopped)),
            HttpFailure::Gone => Self::broken(object, "rclone has exited"),
            HttpFailure::Broken(reason) => Self::broken(object, format!("the answer broke off: {reason}")),
            HttpFailure::Slow(time) => Self {
                error: StorageError::new(
                    ErrorKind::Timeout,
                    object,
                    format!("less than {} KiB in {} s", PROGRESS_BYTES >> 10, time.as_secs_f64()),
                ),
                cause: RcloneCause::NoAnswer,
            },
            HttpFailure::Silent(time) => Self {
                error: StorageError::new(ErrorKind::Timeout, object, format!("no data in {} s", time.as_secs_f64())),
                cause: RcloneCause::NoAnswer,
            },
        }
    }

    /// The failure that rclone reports about `object` in the body of an answer. `remote` has the texts that are not shown.
    pub(super) fn of_answer(object: &str, status: u16, body: &str, remote: &RcloneRemote) -> Self {
        Self::of_message(object, status, &remote.without_hidden(&message_of(body)))
    }

    /// The failure that a message of rclone or ssh states.
    pub(super) fn of_message(object: &str, status: u16, message: &str) -> Self {
        let lower = message.to_lowercase();
        let has = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
        // As a word: dates in names contain such digits.
        let has_code = |codes: &[&str]| lower.split(|c: char| !c.is_alphanumeric()).any(|word| codes.contains(&word));
        let reason = shown(last_part(message));
        let fail =
            |kind, cause, hint: &str| Self { error: StorageError::new(kind, object, format!("{reason}{hint}")), cause };
        use RcloneCause::{Absent, Busy, Closed, Final, NoAnswer, NoService, OutOfRange, Stale};
        if has(&["key is unknown", "host key verification failed"]) && !has(&["has changed"]) {
            let reason = "the host key of the server is not in known_hosts; compare it with the server's own and accept it \
                          once (ssh HOST, or ssh -p PORT HOST)";
            return Self::last(StorageError::new(ErrorKind::Denied, object, reason));
        }
        if has(&["knownhosts: key mismatch", "identification has changed"]) {
            let reason = "the host key of the server is not the one in known_hosts: another machine answers, or the key was \
                          changed (see ssh HOST); rclone before 1.64 also needs the server's keys of all types there \
                          (ssh-keyscan)";
            return Self::last(StorageError::new(ErrorKind::Denied, object, reason));
        }
        if has(&["didn't find section in config", "didn't find backend called"]) {
            let hint = "; rclone has no such remote: see rclone listremotes, and make one with rclone config";
            return fail(ErrorKind::Invalid, Final, hint);
        }
        if has(&[
            "unable to authenticate",
            "unexpected message type 51",
            "permission denied (",
            "unauthorized",
            "login incorrect",
        ]) || has_code(&["401", "530"])
            || has(&["authentication failed", "invalid_grant", "invalid_access_token", "expired_access_token"])
            || has(&["password is required", "passphrase protected", "couldn't decrypt", "signaturedoesnotmatch"])
        {
            return fail(ErrorKind::Denied, Final, "; check the user, and the password, key or token");
        }
        if has(&["permission denied", "access denied", "accessdenied", "forbidden"]) || has_code(&["403"]) {
            return fail(ErrorKind::Denied, Final, "; check the permissions of the user");
        }
        if has(&["too many requests", "rate limit", "ratelimit", "slow down", "slowdown", "throttl"])
            || has_code(&["429"])
        {
            return fail(ErrorKind::Io, Busy, "");
        }
        if has(&["certificate", "x509", "tls:"]) {
            let hint = "; check the CA certificates (package ca-certificates, or --ssl-cacert-file) and the clock";
            return fail(ErrorKind::Io, Final, hint);
        }
        if has(&["connection refused"]) {
            return fail(ErrorKind::Io, NoService, "; check the host and the port");
        }
        if has(&[
            "no such host",
            "server misbehaving",
            "name or service not known",
            "could not resolve",
            "no route to host",
        ]) || has(&["network is unreachable", "temporary failure in name resolution"])
        {
            return fail(ErrorKind::Io, NoService, "; check the name of the host and the network");
        }
        if has(&["timeout", "timed out", "deadline exceeded"]) {
            return fail(ErrorKind::Timeout, NoAnswer, "");
        }
        if status == 416 {
            return fail(ErrorKind::Io, OutOfRange, "");
        }
        if status == 404 || has(&["object not found", "directory not found", "no such file"]) {
            return fail(ErrorKind::NotFound, Absent, "");
        }
        if has(&["broken pipe", "connection reset by peer", "use of closed network connection"]) {
            return fail(ErrorKind::Io, Stale, "");
        }
        if has(&["unexpected eof", "couldn't initialise sftp"]) {
            return fail(ErrorKind::Io, Closed, "");
        }
        fail(ErrorKind::Io, Busy, "")
    }
}

/// `message` as it is shown: without control characters, and its beginning only.
fn shown(message: &str) -> String {
    escape_bytes(message.as_bytes()).chars().take(MAX_REASON).collect()
}

/// The text of the member `error` of an answer, or the answer itself.
fn message_of(body: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let error = parsed.as_ref().and_then(|answer| answer.get("error")?.as_str());
    error.unwrap_or(body).trim().to_owned()
}

/// The message without the parts in front that name steps of rclone.
fn last_part(message: &str) -> &str {
    let mut rest = message.trim();
    for step in [
        "error in ListJSON: ",
        "failed to make FS: ",
        "failed to make Fs: ",
        "NewFs: ",
        "failed to find object: ",
        "read metadata failed: ",
    ] {
        rest = rest.strip_prefix(step).unwrap_or(rest);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(body: &str) -> RcloneFailure {
        let remote =
            RcloneRemote::configured("azureblob", "azure://c", "c").with("sas_url", "https://e/?sv=1&sig=2%3D");
        RcloneFailure::of_answer("o", 500, body, &remote)
    }

    fn of(message: &str) -> (ErrorKind, RcloneCause) {
        let failure = answered(&serde_json::json!({ "error": message }).to_string());
        assert!(!failure.error.to_string().contains('\n'));
        (failure.error.kind, failure.cause)
    }

    #[test]
    fn messages_of_rclone_have_their_kinds() {
        use ErrorKind::{Denied, Invalid, Io, NotFound, Timeout};
        use RcloneCause::{Absent, Busy, Closed, Final, NoAnswer, NoService, Stale};
        for (message, kind, cause) in [
            (
                "NewFs: couldn't connect SSH: ssh: handshake failed: ssh: unable to authenticate, attempted methods [none \
                 publickey], no supported methods remain",
                Denied,
                Final,
            ),
            // The server refused a login (SSH_MSG_USERAUTH_FAILURE) where the library expects a prompt.
            (
                "NewFs: couldn't connect SSH: ssh: handshake failed: ssh: unexpected message type 51 (expected 60)",
                Denied,
                Final,
            ),
            ("NewFs: couldn't connect SSH: ssh: handshake failed: knownhosts: key is unknown", Denied, Final),
            ("NewFs: couldn't connect SSH: ssh: handshake failed: knownhosts: key mismatch", Denied, Final),
            ("dial tcp 127.0.0.1:2298: connect: connection refused", Io, NoService),
            ("dial tcp: lookup nohost: no such host", Io, NoService),
            ("error in ListJSON: directory not found", NotFound, Absent),
            ("failed to find object: object not found", NotFound, Absent),
            ("couldn't list files: Unauthorized: 401 Unauthorized", Denied, Final),
            ("NewFs: failed to make FTP connection: 530 Login incorrect.", Denied, Final),
            ("NewFs: read metadata failed: HTTP error 401 (401 ) returned body: \"\"", Denied, Final),
            ("NewFs: failed to make FTP connection: 530 Denied.", Denied, Final),
            ("didn't find section in config file", Invalid, Final),
            ("googleapi: Error 429: Too Many Requests", Io, Busy),
            ("read tcp: i/o timeout", Timeout, NoAnswer),
            ("open: write tcp 127.0.0.1:5020->127.0.0.1:21: write: broken pipe", Io, Stale),
            ("couldn't initialise SFTP: server unexpectedly closed connection: unexpected EOF", Io, Closed),
            ("something else of 20240101T040300Z", Io, Busy),
        ] {
            assert_eq!(of(message), (kind, cause), "{message}");
        }
    }

    #[test]
    fn the_steps_of_rclone_are_not_shown() {
        let failure = answered("{\"error\": \"error in ListJSON: NewFs: broken \\n pipe\"}");
        assert_eq!(failure.error.to_string(), "o: broken \\x0a pipe");
        assert_eq!(answered("no json").error.to_string(), "o: no json");
    }

    #[test]
    fn a_secret_of_the_remote_is_not_shown() {
        // As the JSON of Go writes it.
        let failure = answered(r#"{"error": "GET https://e/c?comp=list\u0026sv=1\u0026sig=2%3D: broken"}"#);
        assert_eq!(failure.error.to_string(), "o: GET https://e/c?comp=list&...: broken");
    }
}
