//! The name of an OpenPGP key by the end of its fingerprint.

use std::fmt;
use std::str::FromStr;

/// The fingerprint of an OpenPGP key or the last digits of one: 8 to 40 hexadecimal digits, in upper case. In text, as gpg takes
/// it, `0x` may be in front and `!` behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId(String);

impl KeyId {
    /// The numbers of digits that it may have.
    const LENGTHS: std::ops::RangeInclusive<usize> = 8..=40;

    /// The digits.
    pub(super) fn digits(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let digits = digits.strip_suffix('!').unwrap_or(digits);
        let is_id = Self::LENGTHS.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| Self(digits.to_ascii_uppercase())).ok_or("not a key ID: give 8 to 40 hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_last_digits() {
        let fingerprint = "ABCDEF0123456789ABCDEF0123456789ABCDEF01";
        for (text, digits) in [
            ("ABCDEF01", "ABCDEF01"),
            ("0xabcdef0123456789", "ABCDEF0123456789"),
            (&format!("{fingerprint}!"), fingerprint),
            (&format!("0x{fingerprint}!"), fingerprint),
        ] {
            assert_eq!(text.parse(), Ok(KeyId(digits.to_owned())));
        }
        for wrong in ["", "ABCDEF0", "joe@example.org", "0x0xABCDEF01", "ABCDEF01!!", &format!("{fingerprint}0")] {
            assert!(wrong.parse::<KeyId>().is_err(), "{wrong}");
        }
    }
}
