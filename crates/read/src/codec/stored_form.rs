//! The form of a stored object, decided by its name and its first bytes (FORMAT.md section 1).

use std::io;

use dupfs_format::name::NameSuffix;

use super::armor_reader;
use super::object_context::ObjectContext;

/// Bytes at the start of an object that decide its form.
pub(super) const SNIFFED_BYTES: usize = 32;

/// The form of stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredForm {
    Plain,
    Gzip,
    OpenPgp,
    Armor,
    Cms,
}

impl StoredForm {
    /// Returns the form of the object, by its name and its first bytes `start`.
    ///
    /// The name is binding, because anyone who can write to the store can replace an object without having a key. An
    /// object named as encrypted must be an OpenPGP message, armoured or not, and one named as compressed must be gzip.
    /// Only a name without a suffix leaves the choice to the content, because duplicity before 0.7.06 stored gzip under
    /// such names. Content with none of the known beginnings is then plain: a tar archive (which begins with a name, or
    /// with zeros when it is empty) or a manifest.
    ///
    /// # Errors
    /// Damage if the content does not match the name, or is in no form that duplicity writes.
    pub(super) fn detect(ctx: &ObjectContext, start: &[u8]) -> io::Result<Self> {
        let content = Self::of_content(start);
        match (NameSuffix::of(&ctx.object), content) {
            (NameSuffix::Cms, _) => Ok(Self::Cms),
            (NameSuffix::OpenPgp | NameSuffix::Gzip, _) if start.is_empty() => Err(ctx.damaged("it is empty")),
            (NameSuffix::OpenPgp, Some(form @ (Self::OpenPgp | Self::Armor))) => Ok(form),
            (NameSuffix::OpenPgp, _) => {
                Err(ctx.damaged("it is named as encrypted, but it does not begin as an encrypted file does"))
            }
            (NameSuffix::Gzip, Some(Self::Gzip)) => Ok(Self::Gzip),
            (NameSuffix::Gzip, _) => {
                Err(ctx.damaged("it is named as compressed, but it does not begin as a gzip file does"))
            }
            (NameSuffix::None, Some(form)) => Ok(form),
            (NameSuffix::None, None) => Err(ctx.damaged("its content is not in a form that duplicity writes")),
        }
    }

    fn of_content(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // A sequence of indefinite length, or of a length in up to four bytes.
            [0x30, 0x80..=0x84, ..] => Some(Self::Cms),
            [0x80..=0xff, ..] => Some(Self::OpenPgp),
            _ if start.starts_with(armor_reader::BEGIN_MESSAGE) => Some(Self::Armor),
            [] | [0 | b' '..=b'~', ..] => Some(Self::Plain),
            _ => None,
        }
    }
}
