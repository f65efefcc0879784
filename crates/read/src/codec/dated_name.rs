//! The name of an object, with the time that it states.

use dupfs_format::BackupTime;

/// An object and the time of the set that its name states.
#[derive(Clone, Copy, Debug)]
pub struct DatedName<'n> {
    /// The object's name.
    pub name: &'n str,
    /// The time of its set; `None` if it is not known.
    pub set_time: Option<BackupTime>,
    /// True if [`Decoder::written_at`](super::Decoder::written_at) is to know the object.
    pub records_time: bool,
}

impl<'n> From<&'n str> for DatedName<'n> {
    fn from(name: &'n str) -> Self {
        Self { name, set_time: None, records_time: false }
    }
}
