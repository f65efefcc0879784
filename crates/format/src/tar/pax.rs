//! PAX records: `LEN key=value\n`, with LEN counting the whole record.

use super::fields::decimal;
use super::sparse::SparseRecords;

/// The values of PAX records. An empty value cancels that of a global record.
#[derive(Debug, Default)]
pub(super) struct PaxRecords {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) uname: Option<Vec<u8>>,
    pub(super) gname: Option<Vec<u8>>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) size: Option<u64>,
    pub(super) mtime: Option<i64>,
    /// The records of a sparse file.
    pub(super) sparse: SparseRecords,
    /// True once an extension header was added.
    is_set: bool,
}

impl PaxRecords {
    /// Adds the records of one extension header. Later records win.
    pub(super) fn add(&mut self, mut data: &[u8]) -> Result<(), &'static str> {
        self.is_set = true;
        // Python stops at a NUL, which only padding has there.
        while data.first().is_some_and(|&b| b != 0) {
            let (record, rest) = split_record(data).ok_or("a PAX record has a wrong length")?;
            data = rest;
            let equals = record.iter().position(|&b| b == b'=').ok_or("a PAX record has no '='")?;
            let (key, value) = record.split_at_checked(equals).unwrap_or((record, &[]));
            self.set(key, value.get(1..).unwrap_or(&[]))?;
        }
        Ok(())
    }

    /// Returns true if no extension header was added.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_set
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = |value| whole_number(value).ok_or("a PAX record has a malformed number");
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"uname" => self.uname = Some(value.to_vec()),
            b"gname" => self.gname = Some(value.to_vec()),
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => self.mtime = number(value)?,
            b"size" => {
                let size = number(value)?.map(u64::try_from).transpose();
                self.size = size.map_err(|_| "a PAX record's size is negative")?;
            }
            _ if key.starts_with(b"GNU.sparse.") => self.sparse.set(key, value)?,
            // hdrcharset states whether values are UTF-8, which makes no difference to raw bytes. Other records are not
            // needed.
            _ => {}
        }
        Ok(())
    }
}

/// Returns `key=value` of the first record in `data`, and the data after that record.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = data.iter().take(20).position(|&b| b == b' ')?;
    let len = decimal(data.get(..digits)?)?;
    let (record, rest) = data.split_at_checked(usize::try_from(len).ok()?)?;
    Some((record.strip_suffix(b"\n")?.get(digits + 1..)?, rest))
}

/// Parses a decimal number, truncated toward zero as duplicity does. Returns `Some(None)` for an empty value.
fn whole_number(value: &[u8]) -> Option<Option<i64>> {
    if value.is_empty() {
        return Some(None);
    }
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let whole = match digits.iter().position(|&b| b == b'.') {
        Some(dot) => {
            let (whole, fraction) = digits.split_at_checked(dot)?;
            fraction.get(1..)?.iter().all(u8::is_ascii_digit).then_some(whole)?
        }
        None => digits,
    };
    let magnitude = i64::try_from(decimal(whole)?).ok()?;
    Some(Some(if negative { -magnitude } else { magnitude }))
}
