//! Sparse files as GNU tar stores them: the old form with a map in the header, and PAX forms 0.0, 0.1 and 1.0.

use super::BLOCK;
use super::header::{Names, decimal, number};

/// Offset in the file and length of each stored piece, in order.
pub type SparseMap<'a> = &'a [(u64, u64)];

/// How the data of an entry makes up a sparse file; holes read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sparse<'a> {
    /// The pieces stand one after the other in the data.
    Map {
        /// Size of the file.
        size: u64,
        /// Its pieces.
        map: SparseMap<'a>,
    },
    /// The data begins with the map (PAX form 1.0, see [`parse_map`](Sparse::parse_map)).
    InData {
        /// Size of the file.
        size: u64,
    },
}

/// What PAX records tell of a sparse file.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    major: u64,
    minor: u64,
    map: Vec<(u64, u64)>,
    offset: Option<u64>,
    told: bool,
}

const WRONG: &str = "a sparse file's map is damaged";

impl SparseRecords {
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        self.told = true;
        let number = || decimal(value).ok_or(WRONG);
        match key {
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.size = Some(number()?),
            b"GNU.sparse.major" => self.major = number()?,
            b"GNU.sparse.minor" => self.minor = number()?,
            b"GNU.sparse.offset" => self.offset = Some(number()?),
            b"GNU.sparse.numbytes" => {
                let offset = self.offset.take().ok_or(WRONG)?;
                self.map.push((offset, number()?));
            }
            b"GNU.sparse.map" => {
                let mut numbers = value.split(|&b| b == b',').map(|digits| decimal(digits).ok_or(WRONG));
                self.map.clear();
                while let Some(offset) = numbers.next() {
                    self.map.push((offset?, numbers.next().ok_or(WRONG)??));
                }
            }
            // The number of pieces, which their list tells too.
            b"GNU.sparse.numblocks" => {}
            _ => return Err("it is a sparse file of an unknown form"),
        }
        Ok(())
    }
}

/// What the header `block` and the records before it say of a sparse file.
pub(super) fn of<'a>(block: &[u8; BLOCK], names: &Names<'a>) -> Result<Option<Sparse<'a>>, &'static str> {
    let records = &names.local.sparse;
    let old = super::header::type_flag(block) == b'S';
    if !old && !records.told {
        return if names.global.sparse.told { Err("it is a sparse file of an unknown form") } else { Ok(None) };
    }
    let Some(map) = names.map else { return Err("it is a sparse file, which duplicity does not write") };
    if old {
        let size = u64::try_from(number(&block[483..495])?).map_err(|_| WRONG)?;
        return Ok(Some(Sparse::Map { size, map }));
    }
    let size = records.size.ok_or(WRONG)?;
    match (records.major, records.minor) {
        (0, _) => Ok(Some(Sparse::Map { size, map: &records.map })),
        (1, 0) => Ok(Some(Sparse::InData { size })),
        _ => Err("it is a sparse file of an unknown form"),
    }
}

/// The pieces in an old GNU sparse header; whether a block with more follows.
pub(super) fn first(block: &[u8; BLOCK], map: &mut Vec<(u64, u64)>) -> Result<bool, &'static str> {
    pieces(&block[386..482], map)?;
    Ok(block[482] != 0)
}

/// The pieces in a block that continues such a header; whether yet another follows.
pub(super) fn continued(block: &[u8; BLOCK], map: &mut Vec<(u64, u64)>) -> Result<bool, &'static str> {
    pieces(&block[..504], map)?;
    Ok(block[504] != 0)
}

fn pieces(fields: &[u8], map: &mut Vec<(u64, u64)>) -> Result<(), &'static str> {
    for (offset, len) in fields.as_chunks::<24>().0.iter().map(|piece| piece.split_at(12)) {
        if offset.first() == Some(&0) {
            break;
        }
        let number = |field| u64::try_from(number(field)?).map_err(|_| WRONG);
        map.push((number(offset)?, number(len)?));
    }
    Ok(())
}

/// Pieces of a sparse file: offset and length of each, in bytes.
type OwnedMap = Vec<(u64, u64)>;

impl Sparse<'_> {
    /// The map that stands at the front of `data` (PAX form 1.0: decimal numbers, each on a line, padded to a block), and
    /// how many bytes it takes. `None` if `data` does not hold all of it yet.
    ///
    /// # Errors
    /// What is wrong with it; also a map of more than `most` pieces.
    pub fn parse_map(data: &[u8], most: usize) -> Result<Option<(OwnedMap, u64)>, &'static str> {
        let mut at = 0;
        let Some(count) = line(data, &mut at)? else { return Ok(None) };
        let count =
            usize::try_from(count).ok().filter(|&count| count <= most).ok_or("a sparse file has too many holes")?;
        let mut map = Vec::new();
        for _ in 0..count {
            let (Some(offset), Some(len)) = (line(data, &mut at)?, line(data, &mut at)?) else { return Ok(None) };
            map.push((offset, len));
        }
        Ok(Some((map, at.next_multiple_of(BLOCK) as u64)))
    }
}

/// The number on the line at `at`; `None` if the line is not complete.
fn line(data: &[u8], at: &mut usize) -> Result<Option<u64>, &'static str> {
    let rest = data.get(*at..).unwrap_or(&[]);
    match rest.iter().take(21).position(|&b| b == b'\n') {
        Some(end) => {
            *at += end + 1;
            decimal(rest.get(..end).unwrap_or(&[])).map(Some).ok_or(WRONG)
        }
        None if rest.len() > 20 => Err(WRONG),
        None => Ok(None),
    }
}
