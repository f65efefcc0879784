//! The reason why ssh does not connect, which rclone does not pass on.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::failure::RcloneFailure;
use dupfs_base::RequestContext;
use dupfs_base::sync::pause_until;

/// The pause between two looks at the process.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs `command`, which makes the connection and ends it at once, until the end of the request at most. Returns the failure that it states;
/// `None` if it succeeds or states nothing.
pub(super) fn diagnose(command: &[String], object: &str, context: &RequestContext) -> Option<RcloneFailure> {
    let (program, arguments) = command.split_first()?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if pause_until(Instant::now() + POLL_INTERVAL, context).is_ok() => {}
            _ => {
                // It may have exited in the meantime.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    if status.is_none_or(|status| status.success()) {
        return None;
    }
    let mut text = Vec::new();
    child.stderr.take()?.take(64 * 1024).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The last line states the failure; of a changed host key the lines before it do.
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let changed = text.lines().find(|line| line.contains("IDENTIFICATION HAS CHANGED"));
    Some(RcloneFailure::of_message(object, 0, &changed.map_or_else(|| line.to_owned(), str::to_lowercase)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dupfs_base::{CancelToken, ErrorKind};

    fn of(script: &str) -> Option<RcloneFailure> {
        diagnose(
            &["sh", "-c", script].map(str::to_owned),
            "sftp://h",
            &RequestContext::with_timeout(Duration::from_secs(20)),
        )
    }

    #[test]
    fn the_last_line_of_a_failed_command_is_the_reason() {
        let failure = of("echo banner >&2; echo 'root@h: Permission denied (publickey).' >&2; exit 255").unwrap();
        assert_eq!(failure.error.kind, ErrorKind::Denied);
        assert!(failure.error.to_string().starts_with("sftp://h: root@h: Permission denied (publickey).;"));
        let changed =
            "echo '@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @' >&2; echo 'Host key verification failed.' >&2";
        let failure = of(&format!("{changed}; exit 255")).unwrap();
        assert!(failure.error.to_string().contains("is not the one in known_hosts"), "{}", failure.error);
        assert!(of("echo x >&2; exit 0").is_none() && of("exit 1").is_none());
    }

    #[test]
    fn a_diagnosis_ends_with_its_request() {
        let token = CancelToken::new();
        token.cancel();
        let begun = Instant::now();
        let command = ["sleep", "60"].map(str::to_owned);
        assert!(diagnose(&command, "sftp://h", &RequestContext::new(None, token)).is_none());
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
