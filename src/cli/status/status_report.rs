//! The report of `status` on one mount (docs/CLI.md).

use dupfs_base::{escape_bytes, without_errno};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::exit::CommandExit;
use crate::fuse::{MountEntry, MountStatus};

/// The answer of a daemon.
#[derive(Debug)]
pub(super) enum MountState {
    /// Its status, as it came, and parsed.
    Serving(Value, Box<MountStatus>),
    /// The daemon has exited.
    Stale,
    /// It does not answer.
    Hangs,
    /// Only the user who mounted may ask.
    Denied,
    /// Any other reason.
    Failed(String),
}

impl MountState {
    /// The state for the attribute's value.
    pub(super) fn of_value(value: &[u8]) -> Self {
        // The daemon may be of another version or of another user.
        let parsed = serde_json::from_slice(value).and_then(|json: Value| {
            let status = MountStatus::deserialize(&json)?;
            Ok((json, status))
        });
        match parsed {
            Ok((json, status)) => Self::Serving(json, Box::new(status)),
            Err(_) => {
                Self::Failed("the answer of its daemon cannot be read; is it of another version of dupfs?".into())
            }
        }
    }

    /// The state for the errno of the request.
    pub(super) fn of_errno(errno: i32) -> Self {
        match errno {
            libc::ENOTCONN => Self::Stale,
            libc::EACCES | libc::EPERM => Self::Denied,
            libc::ENODATA | libc::EOPNOTSUPP => {
                Self::Failed("its daemon does not report a status: it is of an earlier version of dupfs".into())
            }
            other => Self::Failed(without_errno(&std::io::Error::from_raw_os_error(other).to_string())),
        }
    }
}

/// The report on one mount. Its keys are a contract.
#[derive(Debug, Serialize)]
pub(super) struct MountReport {
    /// The mount point.
    pub(super) mountpoint: String,
    /// The mount's source, `dupfs:` and the URL without secrets.
    pub(super) source: String,
    /// `serving`, `stale`, `hangs`, `denied` or `failed`.
    pub(super) state: &'static str,
    /// The reason why there is no status, in one line.
    pub(super) message: Option<String>,
    /// The value of the attribute.
    status: Option<Value>,
    #[serde(skip)]
    pub(super) parsed: Option<Box<MountStatus>>,
}

impl MountReport {
    pub(super) fn new(mount: &MountEntry, state: MountState) -> Self {
        let mountpoint = escape_bytes(mount.target.as_os_str().as_encoded_bytes());
        let source = escape_bytes(mount.source.as_bytes());
        let (state, message, status) = match state {
            MountState::Serving(json, status) => ("serving", None, Some((json, status))),
            MountState::Stale => {
                let line = format!("its daemon has exited; clear the mount point with: dupfs umount {mountpoint}");
                ("stale", Some(line), None)
            }
            MountState::Hangs => {
                let line = format!(
                    "its daemon does not answer; look at its log, or end it and run: dupfs umount --lazy {mountpoint}"
                );
                ("hangs", Some(line), None)
            }
            MountState::Denied => {
                let user = mount.user_id.map_or_else(|| "USER".to_owned(), |id| format!("'#{id}'"));
                let line = format!("only the user who mounted may ask: sudo -u {user} dupfs status {mountpoint}");
                ("denied", Some(line), None)
            }
            MountState::Failed(reason) => ("failed", Some(reason), None),
        };
        let (status, parsed) = status.unzip();
        Self { mountpoint, source, state, message, status, parsed }
    }

    /// The exit code for the mount.
    pub(super) fn exit(&self) -> CommandExit {
        match self.state {
            "serving" => CommandExit::Done,
            "denied" => CommandExit::Denied,
            _ => CommandExit::Failed,
        }
    }
}
