//! The failure of an attempt: a message of one line with the remedy, and the cause, which decides about a retry.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::storage::{ObjectInfo, StorageError};
use dupfs_base::{ErrorKind, escape_bytes, without_errno};

/// A failed attempt.
#[derive(Debug)]
pub(super) struct S3Failure {
    pub(super) error: StorageError,
    pub(super) cause: FailureCause,
}

/// The cause of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FailureCause {
    /// The answer is final.
    Final,
    /// The service is overloaded, failed, or broke off the answer: retry.
    Busy,
    /// There was no answer, or its body stalled: retry.
    NoAnswer,
    /// The host does not exist, refuses connections or does not speak the protocol: retry, but not while the store is being
    /// opened.
    NoService,
    /// The credentials have expired: renew them.
    Expired,
    /// The bucket is in this region.
    Region(String),
}

impl FailureCause {
    /// Returns true if another attempt may succeed without a change.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Busy | Self::NoAnswer | Self::NoService => true,
            Self::Final | Self::Expired | Self::Region(_) => false,
        }
    }
}

impl S3Failure {
    /// A failure that no retry helps against.
    pub(super) fn last(error: StorageError) -> Self {
        Self { error, cause: FailureCause::Final }
    }

    /// The answer is invalid or incomplete; another attempt may succeed.
    pub(super) fn broken(object: &str, reason: impl AsRef<str>) -> Self {
        Self { error: StorageError::new(ErrorKind::Io, object, reason), cause: FailureCause::Busy }
    }

    /// There was no answer in time.
    pub(super) fn silent(object: &str, reason: impl AsRef<str>) -> Self {
        Self { error: StorageError::new(ErrorKind::Timeout, object, reason), cause: FailureCause::NoAnswer }
    }

    /// The failure of a listing of `url`.
    pub(super) fn of_list<E>(url: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(context) => {
                let answer = ErrorResponse::new(context.err(), context.raw());
                answer.common(url, "list", "s3:ListBucket").unwrap_or_else(|| answer.unknown(url))
            }
            other => transport(url, other),
        }
    }

    /// The failure of a fetch of `object`.
    pub(super) fn of_get<E>(object: &ObjectInfo, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let SdkError::ServiceError(context) = error else { return transport(&object.name, error) };
        let answer = ErrorResponse::new(context.err(), context.raw());
        match (answer.status, &*answer.code) {
            (_, "InvalidObjectState") => {
                Self::last(StorageError::archived(object, object.archived.as_deref().unwrap_or("archive tier")))
            }
            (404, code) if code != "NoSuchBucket" => Self::last(StorageError::missing(object)),
            // The object is shorter than listed, or another one.
            (412 | 416, _) => Self::last(StorageError::replaced(object)),
            _ => answer.common(&object.name, "read", "s3:GetObject").unwrap_or_else(|| answer.unknown(&object.name)),
        }
    }
}

/// An error response of the service.
struct ErrorResponse {
    status: u16,
    code: String,
    message: String,
    region: Option<String>,
    /// The body says, as those of most servers do, that plain HTTP was sent to a port for HTTPS.
    expects_tls: bool,
}

impl ErrorResponse {
    fn new(error: &impl ProvideErrorMetadata, raw: &HttpResponse) -> Self {
        let header = raw.headers().get("x-amz-bucket-region").map(str::to_owned);
        let body = raw.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
        let element = body.split_once("<Region>").and_then(|(_, rest)| rest.split_once("</Region>"));
        let region = header.or_else(|| element.map(|(region, _)| region.to_owned()));
        Self {
            status: raw.status().as_u16(),
            code: error.code().unwrap_or_default().to_owned(),
            message: error.message().unwrap_or_default().to_owned(),
            region: region.filter(|r| !r.is_empty() && r.len() < 64),
            expects_tls: [
                "HTTP request to an HTTPS server",
                "HTTP request was sent to HTTPS port",
                "speaking plain HTTP to an SSL",
            ]
            .iter()
            .any(|text| body.contains(text)),
        }
    }

    /// The failure, if it is the same for every operation. `action` is the permission that `operation` needs.
    fn common(&self, object: &str, operation: &str, action: &str) -> Option<S3Failure> {
        let denied = |reason: String| S3Failure::last(StorageError::new(ErrorKind::Denied, object, reason));
        let code = &*self.code;
        Some(match (self.status, code) {
            (_, "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken") => S3Failure {
                cause: FailureCause::Expired,
                ..denied(format!("the session token has expired ({code}); log in again or renew it"))
            },
            (_, "RequestTimeTooSkewed" | "RequestExpired") => {
                denied("the clock of this machine is wrong; set it (timedatectl set-ntp true)".to_owned())
            }
            (_, "InvalidAccessKeyId") => {
                let service_message = self.service_message();
                denied(format!(
                    "the service does not know the access key ID{service_message}; check the credentials and the endpoint"
                ))
            }
            (_, "SignatureDoesNotMatch") => {
                let service_message = self.service_message();
                denied(format!(
                    "the secret access key is wrong (SignatureDoesNotMatch){service_message}; check the credentials"
                ))
            }
            (_, "NoSuchBucket") => {
                let reason = "no such bucket; check the bucket's name, the endpoint and --s3-url-style";
                S3Failure::last(StorageError::new(ErrorKind::NotFound, object, reason))
            }
            (_, "InvalidBucketName") => {
                S3Failure::last(StorageError::new(ErrorKind::Invalid, object, "this is not a valid name of a bucket"))
            }
            (301 | 307, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                let hint = self.region.as_ref().map(|r| format!(" (it is in {r})")).unwrap_or_default();
                let reason = format!("the bucket is in another region{hint}; set --s3-region-name");
                S3Failure {
                    cause: self.region.clone().map_or(FailureCause::Final, FailureCause::Region),
                    ..denied(reason)
                }
            }
            (400, "UnsupportedAlgorithm" | "MissingAuthenticationToken" | "MissingSecurityHeader") => {
                denied(format!("the service requires signed requests ({code}); configure credentials"))
            }
            (400 | 403, "AllAccessDisabled" | "AccountProblem" | "NotSignedUp") => {
                denied(format!("the account has no access: {}", self.text()))
            }
            (401 | 403, _) => denied(format!(
                "access denied{}{}; check the credentials, and that they may {operation} (permission {action})",
                if code.is_empty() || code == "AccessDenied" { String::new() } else { format!(" ({code})") },
                self.service_message(),
            )),
            (408 | 429 | 500 | 502..=504 | 506..=599, _)
            | (_, "SlowDown" | "InternalError" | "RequestTimeout" | "Throttling") => {
                S3Failure::broken(object, self.text())
            }
            _ => return None,
        })
    }

    fn unknown(&self, object: &str) -> S3Failure {
        let text = self.text();
        S3Failure::last(match self.status {
            400 if self.expects_tls => {
                let reason = "the port expects TLS and was asked for plain HTTP; check the endpoint (https:// in \
                              --s3-endpoint-url, and no --s3-unencrypted-connection)";
                StorageError::new(ErrorKind::Io, object, reason)
            }
            404 => {
                let reason = format!("not found ({text}); check the bucket's name and the endpoint");
                StorageError::new(ErrorKind::NotFound, object, reason)
            }
            _ => StorageError::new(ErrorKind::Io, object, format!("the service refused the request: {text}")),
        })
    }

    /// Returns the message of the service, if it says more than the code.
    fn service_message(&self) -> String {
        let message = escape_bytes(self.message.as_bytes());
        let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_informative = !words.is_empty() && !words.trim_end_matches('.').eq_ignore_ascii_case("access denied");
        let words: String = words.trim_end_matches('.').chars().take(200).collect();
        if is_informative { format!(", the service says: {words}") } else { String::new() }
    }

    fn text(&self) -> String {
        let message = escape_bytes(self.message.as_bytes());
        let text = format!("HTTP {} {} {message}", self.status, self.code);
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
    }
}

/// The failure of a request without an answer.
fn transport<E: Error + 'static>(object: &str, error: &SdkError<E, HttpResponse>) -> S3Failure {
    let (all, root) = chain(error);
    let fail = |kind, reason: String, cause| S3Failure { error: StorageError::new(kind, object, reason), cause };
    if let SdkError::ResponseError(_) = error {
        return S3Failure::broken(object, format!("the answer is invalid: {root}"));
    }
    if let Some(reason) = other_protocol(&all, &root) {
        return fail(ErrorKind::Io, reason, FailureCause::NoService);
    }
    if all.contains("certificate") || all.contains("tls") || all.contains("handshake") || all.contains("invalidmessage")
    {
        let hint = "check the endpoint (HTTPS or --s3-unencrypted-connection), the clock and the CA certificates \
                    (package ca-certificates, or SSL_CERT_FILE)";
        return fail(ErrorKind::Io, format!("no secure connection: {root}; {hint}"), FailureCause::Final);
    }
    if all.contains("dns error") || all.contains("lookup address") || all.contains("name or service not known") {
        let hint = "check the name of the endpoint (--s3-endpoint-url, AWS_ENDPOINT_URL or the URL) and the network";
        return fail(ErrorKind::Io, format!("the host was not found: {root}; {hint}"), FailureCause::NoService);
    }
    if all.contains("connection refused") {
        let hint = "check the endpoint and its port";
        return fail(ErrorKind::Io, format!("the host refuses the connection; {hint}"), FailureCause::NoService);
    }
    if all.contains("credentials") || all.contains("identity") {
        let hint = "check the profile, the role and the environment (aws sts get-caller-identity)";
        return fail(ErrorKind::Denied, format!("no credentials: {root}; {hint}"), FailureCause::Final);
    }
    match error {
        SdkError::ConstructionFailure(_) => {
            fail(ErrorKind::Invalid, format!("the request is invalid: {root}"), FailureCause::Final)
        }
        _ => fail(ErrorKind::Timeout, format!("no connection: {root}"), FailureCause::NoAnswer),
    }
}

/// The reason of a failure, of which `all` has all causes, if what listens at the endpoint does not speak its protocol.
fn other_protocol(all: &str, root: &str) -> Option<String> {
    // What the client of HTTP says of the first line of an answer.
    if ["invalid http version parsed", "invalid http status-code parsed"].iter().any(|text| all.contains(text)) {
        let hint = "check the endpoint and its port (--s3-endpoint-url; https:// for a port that expects TLS)";
        return Some(format!("what listens there does not speak HTTP ({root}); {hint}"));
    }
    // What the client of TLS says of a record of no type that it has.
    all.contains("corrupt message of type invalidcontenttype").then(|| {
        let hint = "check the endpoint and its port (--s3-endpoint-url; http:// or --s3-unencrypted-connection for a service \
                    without TLS)";
        format!("no secure connection: what listens there does not speak TLS; {hint}")
    })
}

/// All causes of the error in lower case, and the last one as a message.
pub(super) fn chain(error: &(dyn Error + 'static)) -> (String, String) {
    let mut all = format!("{error}").to_lowercase();
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
        all.push_str(&format!("\n{last}").to_lowercase());
    }
    let root = escape_bytes(last.to_string().as_bytes());
    let root = without_errno(&root).chars().take(300).collect();
    (all, root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(status: u16, code: &str, message: &str) -> String {
        let answer = ErrorResponse {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
            region: None,
            expects_tls: false,
        };
        answer.common("s3://b", "list", "s3:ListBucket").unwrap().error.reason.to_string()
    }

    #[test]
    fn a_wrong_secret_and_an_unknown_key_id_are_distinguished_by_the_message_of_the_service() {
        let unknown = "The AWS Access Key Id you provided does not exist in our records.";
        let wrong = "The request signature we calculated does not match the signature you provided.";
        assert!(
            reason(403, "InvalidAccessKeyId", unknown)
                .contains("does not know the access key ID, the service says: The")
        );
        assert!(reason(403, "SignatureDoesNotMatch", wrong).contains("the secret access key is wrong"));
        // Services that have one code for both.
        assert!(
            reason(403, "AccessDenied", unknown).contains("access denied, the service says: The AWS Access Key Id you")
        );
        assert!(reason(403, "AccessDenied", wrong).contains("the service says: The request signature"));
        assert!(reason(403, "AccessDenied", "Access Denied.").starts_with("access denied; check"));
    }
}
