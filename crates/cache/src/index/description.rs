//! The description of the repository that an index belongs to. It is for people; the index itself is found by its identity.

use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::encoding::{RecordDecoder, RecordEncoder};

/// Upper bound of the bytes of an encoded description.
const MAX_BYTES: u64 = 64 << 10;

/// The repository that an index belongs to. It contains no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexDescription {
    /// The URL of the repository, without user and password.
    pub url: String,
    /// The options with which the repository was opened, if they give it an index of its own.
    pub options: Vec<String>,
    /// The directory of the repository, if it is one of this machine.
    pub local: Option<PathBuf>,
}

impl IndexDescription {
    /// Encodes it as the body of a file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut encoder = RecordEncoder::default();
        encoder.bytes(self.url.as_bytes());
        encoder.bytes(self.local.as_ref().map_or(&[][..], |path| path.as_os_str().as_bytes()));
        encoder.number(self.options.len() as u64);
        self.options.iter().for_each(|option| encoder.bytes(option.as_bytes()));
        encoder.out
    }

    /// Decodes a body of `len` bytes; `None` if it is not valid.
    pub(super) fn decode(body: &mut dyn Read, len: u64) -> Option<Self> {
        let mut bytes = Vec::new();
        body.take(len.min(MAX_BYTES)).read_to_end(&mut bytes).ok()?;
        let mut decoder = RecordDecoder::new(&bytes);
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let url = text(decoder.bytes()?)?;
        let local = decoder.bytes()?.to_vec();
        let local = (!local.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(local)));
        let options = (0..decoder.count()?).map(|_| text(decoder.bytes()?)).collect::<Option<_>>()?;
        decoder.is_at_end().then_some(Self { url, options, local })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_decoded_as_it_was_and_other_bytes_are_not() {
        let local = Some(PathBuf::from(std::ffi::OsString::from_vec(b"/srv/b\xff".to_vec())));
        let all = IndexDescription {
            url: "file:///srv/b\\xff".to_owned(),
            options: vec!["--a=b".into(), "-c".into()],
            local,
        };
        for description in [IndexDescription::default(), all] {
            let bytes = description.encode();
            let decode = |bytes: &[u8]| IndexDescription::decode(&mut &bytes[..], bytes.len() as u64);
            assert_eq!(decode(&bytes), Some(description));
            assert_eq!(decode(&[&bytes[..], b"x"].concat()), None);
            assert!((0..bytes.len()).all(|cut| decode(&bytes[..cut]).is_none()));
        }
    }
}
