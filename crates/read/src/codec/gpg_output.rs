//! The output of one run of gpg: status lines and messages.

use zeroize::Zeroizing;

use super::session_key::SessionKey;
use dupfs_base::escape_bytes;

/// The output of one run of gpg.
pub(super) struct GpgOutput {
    /// The lines of `--status-fd`.
    pub(super) status: Zeroizing<Vec<u8>>,
    /// Standard error.
    pub(super) messages: Zeroizing<Vec<u8>>,
}

impl GpgOutput {
    /// Returns the arguments of each status line with `keyword`.
    fn lines<'o>(&'o self, keyword: &'o [u8]) -> impl Iterator<Item = &'o [u8]> {
        self.status.split(|&b| b == b'\n').filter_map(move |line| {
            line.strip_prefix(b"[GNUPG:] ")?.strip_prefix(keyword)?.strip_prefix(b" ").map(<[u8]>::trim_ascii)
        })
    }

    /// Returns the session key, if gpg gave one.
    pub(super) fn session_key(&self) -> Option<SessionKey> {
        self.lines(b"SESSION_KEY").find_map(parse_session_key)
    }

    /// Returns the reason that gpg gave for a failure. Only the text after "failed:" is passed on, never a line with a key
    /// in it.
    pub(super) fn reason(&self) -> String {
        let failed = self.messages.split(|&b| b == b'\n').find_map(|line| {
            let at = line.windows(8).position(|window| window == b"failed: ")?;
            line.get(at + 8..)
        });
        format!("gpg: {}", failed.map_or_else(|| "no session key".into(), escape_bytes))
    }

    /// Returns gpg's messages about its agent if it could not start or reach one.
    pub(super) fn agent_failure(&self) -> Option<String> {
        const BEGINNINGS: [&[u8]; 4] =
            [b"gpg: error running ", b"gpg: failed to start ", b"gpg: can't connect to the ", b"gpg: no running "];
        let lines = self.messages.split(|&b| b == b'\n').filter(|line| {
            BEGINNINGS.iter().any(|beginning| line.starts_with(beginning)) && line.windows(5).any(|w| w == b"agent")
        });
        let texts: Vec<String> = lines.filter_map(|line| line.strip_prefix(b"gpg: ")).map(escape_bytes).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    /// Returns true if gpg has the secret key, and there was no way to ask the user for its passphrase.
    pub(super) fn prompt_failed(&self) -> bool {
        const FROM_PINENTRY: u32 = 5;
        const TIMEOUT: u32 = 62;
        const NO_PIN_ENTRY: u32 = 85;
        const PIN_ENTRY: u32 = 86;
        const CANCELLED: u32 = 99;
        const FULLY_CANCELLED: u32 = 198;
        self.errors().any(|(source, code)| match code {
            NO_PIN_ENTRY | PIN_ENTRY => true,
            TIMEOUT | CANCELLED | FULLY_CANCELLED => false,
            _ => source == FROM_PINENTRY,
        })
    }

    /// Returns the error codes of libgpg-error with which the attempt ended: the source of the error, and its code.
    fn errors(&self) -> impl Iterator<Item = (u32, u32)> {
        self.lines(b"ERROR").filter_map(|line| {
            let code: u32 = std::str::from_utf8(line.strip_prefix(b"pkdecrypt_failed ")?).ok()?.parse().ok()?;
            Some((code >> 24, code & 0xffff))
        })
    }

    /// Returns true if the passphrase was wrong.
    pub(super) fn wrong_passphrase(&self) -> bool {
        const BAD_PASSPHRASE: u32 = 11;
        self.errors().any(|(_, code)| code == BAD_PASSPHRASE) || self.lines(b"BAD_PASSPHRASE").next().is_some()
    }

    /// Returns true if gpg asked a smartcard.
    pub(super) fn needed_card(&self) -> bool {
        const FROM_CARD: u32 = 6;
        self.errors().any(|(source, _)| source == FROM_CARD) || self.lines(b"CARDCTRL").next().is_some()
    }
}

/// Parses `9:0011..`: the number of the cipher and the key in hexadecimal; `9.2:0011..` for packet 20, with its mode.
fn parse_session_key(text: &[u8]) -> Option<SessionKey> {
    let colon = text.iter().position(|&b| b == b':')?;
    let (algorithm, hex) = text.split_at_checked(colon)?;
    let cipher: u8 = std::str::from_utf8(algorithm.split(|&b| b == b'.').next()?).ok()?.parse().ok()?;
    let mut key = Zeroizing::new(Vec::with_capacity(32));
    for pair in hex.get(1..)?.chunks(2) {
        key.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
    }
    SessionKey::from_parts(cipher, &key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(status: &str, messages: &str) -> GpgOutput {
        GpgOutput { status: Zeroizing::new(status.into()), messages: Zeroizing::new(messages.into()) }
    }

    #[test]
    fn a_session_key_is_taken_from_the_status_lines_only() {
        let key = "00112233445566778899AABBCCDDEEFF";
        let good = output(&format!("[GNUPG:] BEGIN_DECRYPTION\n[GNUPG:] SESSION_KEY 7:{key}\n"), "");
        let parsed = good.session_key().unwrap();
        assert_eq!(parsed.cipher(), super::super::openpgp_cipher::OpenPgpCipher::Aes128);
        assert_eq!((parsed.bytes().len(), parsed.bytes()[1]), (16, 0x11));
        let ocb = output(&format!("[GNUPG:] SESSION_KEY 7.2:{key}\n"), "");
        assert_eq!(ocb.session_key().unwrap(), parsed);
        for bad in
            [format!("SESSION_KEY 7:{key}"), format!("[GNUPG:] SESSION_KEY 9:{key}"), "[GNUPG:] SESSION_KEY ".into()]
        {
            assert_eq!(output(&bad, "").session_key(), None);
        }
    }

    #[test]
    fn the_reason_is_gpgs_and_never_shows_a_key() {
        let messages = "gpg: session key: '7:0011'\ngpg: public key decryption failed: Bad passphrase\n";
        let bad = output("[GNUPG:] ERROR pkdecrypt_failed 67108875\n", messages);
        assert_eq!(bad.reason(), "gpg: Bad passphrase");
        assert!(bad.wrong_passphrase() && !bad.needed_card());
        assert!(output("[GNUPG:] ERROR pkdecrypt_failed 100663383\n", "").needed_card());
    }

    #[test]
    fn an_agent_that_does_not_start_is_distinguished_from_a_missing_key() {
        // By gpg 2.2.40, with a GNUPGHOME whose path is too long for a socket.
        let messages = "gpg: error running '/usr/bin/gpg-agent': exit status 2\n\
                        gpg: failed to start agent '/usr/bin/gpg-agent': General error\n\
                        gpg: can't connect to the agent: General error\n\
                        gpg: encrypted with 3072-bit RSA key, ID 3D0EFB63C3F7F9A7, created 2026-11-26\n      \"agent\"\n\
                        gpg: decryption failed: No secret key\n";
        let failed = output("[GNUPG:] NO_SECKEY 3D0EFB63C3F7F9A7\n", messages);
        assert_eq!(
            failed.agent_failure().as_deref(),
            Some(
                "error running '/usr/bin/gpg-agent': exit status 2, failed to start agent '/usr/bin/gpg-agent': General \
                 error, can't connect to the agent: General error"
            )
        );
        let without_key =
            output("", "gpg: encrypted with RSA key\n      \"agent\"\ngpg: decryption failed: No secret key\n");
        assert_eq!(without_key.agent_failure(), None);
    }

    #[test]
    fn a_pinentry_that_cannot_ask_is_distinguished_from_a_cancelled_one() {
        let prompt_failed =
            |code: u32| output(&format!("[GNUPG:] ERROR pkdecrypt_failed {code}\n"), "").prompt_failed();
        // "Inappropriate ioctl for device" without GPG_TTY, a GPG_TTY that does not exist, "No pinentry": gpg 2.2.40.
        assert!([83_918_950, 83_918_929, 67_108_949].into_iter().all(prompt_failed));
        // "Bad passphrase", "Operation cancelled" from pinentry, "Timeout".
        assert!(![67_108_875, 83_886_179, 83_886_142].into_iter().any(prompt_failed));
    }
}
