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
    pub(super) fn asked_card(&self) -> bool {
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
        assert!(bad.wrong_passphrase() && !bad.asked_card());
        assert!(output("[GNUPG:] ERROR pkdecrypt_failed 100663383\n", "").asked_card());
    }
}
