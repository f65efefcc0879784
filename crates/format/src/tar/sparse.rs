//! Sparse files as GNU tar stores them: the old form with a map in the header, and the PAX forms 0.0, 0.1 and 1.0.

use super::fields::{BLOCK_LEN, TarBlock, decimal, number, type_flag};

/// The pieces of a sparse file in order: offset in the file and length, in bytes.
pub type SparseMap<'a> = &'a [(u64, u64)];

/// A [`SparseMap`] that owns its pieces.
pub(super) type OwnedSparseMap = Vec<(u64, u64)>;

/// The layout of a sparse file in the data of its entry. Holes read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparseLayout<'a> {
    /// The data consists of the pieces, one after the other.
    Map {
        /// Size of the file.
        size: u64,
        /// The pieces.
        map: SparseMap<'a>,
    },
    /// The data begins with the map (PAX form 1.0; see [`parse_map`](SparseLayout::parse_map)).
    InData {
        /// Size of the file.
        size: u64,
    },
}

/// The PAX records that describe a sparse file.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    major: u64,
    minor: u64,
    map: OwnedSparseMap,
    offset: Option<u64>,
    /// True once any record was seen.
    is_set: bool,
}

const DAMAGED_MAP: &str = "a sparse file's map is damaged";
const UNKNOWN_FORM: &str = "it is a sparse file of an unknown form";

impl SparseRecords {
    /// Takes the record of a key that begins with `GNU.sparse.`.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        self.is_set = true;
        let number = || decimal(value).ok_or(DAMAGED_MAP);
        match key {
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.size = Some(number()?),
            b"GNU.sparse.major" => self.major = number()?,
            b"GNU.sparse.minor" => self.minor = number()?,
            b"GNU.sparse.offset" => self.offset = Some(number()?),
            b"GNU.sparse.numbytes" => {
                let offset = self.offset.take().ok_or(DAMAGED_MAP)?;
                self.map.push((offset, number()?));
            }
            b"GNU.sparse.map" => {
                let mut numbers = value.split(|&b| b == b',').map(|digits| decimal(digits).ok_or(DAMAGED_MAP));
                self.map.clear();
                while let Some(offset) = numbers.next() {
                    self.map.push((offset?, numbers.next().ok_or(DAMAGED_MAP)??));
                }
            }
            // The number of pieces, which follows from their list.
            b"GNU.sparse.numblocks" => {}
            _ => return Err(UNKNOWN_FORM),
        }
        Ok(())
    }
}

/// Returns the layout of the sparse file with the header `block`, and `None` for other files.
///
/// `local` and `global` are the PAX records before the header. `map` is the map of an old GNU sparse entry; `None`
/// refuses sparse files.
pub(super) fn layout_of<'a>(
    block: &TarBlock,
    local: &'a SparseRecords,
    global: &SparseRecords,
    map: Option<SparseMap<'a>>,
) -> Result<Option<SparseLayout<'a>>, &'static str> {
    let old = type_flag(block) == b'S';
    if !old && !local.is_set {
        return if global.is_set { Err(UNKNOWN_FORM) } else { Ok(None) };
    }
    let Some(map) = map else { return Err("it is a sparse file, which duplicity does not write") };
    if old {
        let size = u64::try_from(number(&block[483..495])?).map_err(|_| DAMAGED_MAP)?;
        return Ok(Some(SparseLayout::Map { size, map }));
    }
    let size = local.size.ok_or(DAMAGED_MAP)?;
    match (local.major, local.minor) {
        (0, _) => Ok(Some(SparseLayout::Map { size, map: &local.map })),
        (1, 0) => Ok(Some(SparseLayout::InData { size })),
        _ => Err(UNKNOWN_FORM),
    }
}

/// Adds the pieces in an old GNU sparse header to `map`. Returns true if a block with more pieces follows.
pub(super) fn add_header_pieces(block: &TarBlock, map: &mut OwnedSparseMap) -> Result<bool, &'static str> {
    add_pieces(&block[386..482], map)?;
    Ok(block[482] != 0)
}

/// Adds the pieces in a block that continues such a header to `map`. Returns true if another block follows.
pub(super) fn add_more_pieces(block: &TarBlock, map: &mut OwnedSparseMap) -> Result<bool, &'static str> {
    add_pieces(&block[..504], map)?;
    Ok(block[504] != 0)
}

fn add_pieces(fields: &[u8], map: &mut OwnedSparseMap) -> Result<(), &'static str> {
    for (offset, len) in fields.as_chunks::<24>().0.iter().map(|piece| piece.split_at(12)) {
        if offset.first() == Some(&0) {
            break;
        }
        let number = |field| u64::try_from(number(field)?).map_err(|_| DAMAGED_MAP);
        map.push((number(offset)?, number(len)?));
    }
    Ok(())
}

/// The reason why the map at the front of a sparse member's data is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparseMapFault {
    /// It is no map.
    Damaged,
    /// It has more pieces than are allowed.
    TooManyPieces,
}

impl SparseLayout<'_> {
    /// Parses the map at the front of `data` (PAX form 1.0: decimal numbers, one a line, padded to a block). Returns
    /// the map and the number of bytes that it takes, or `None` if `data` does not contain all of it yet.
    ///
    /// # Errors
    /// [`SparseMapFault`] for damage, and for a map of more than `max_pieces` pieces.
    pub fn parse_map(data: &[u8], max_pieces: usize) -> Result<Option<(OwnedSparseMap, u64)>, SparseMapFault> {
        let number_line = |data: &[u8], at: &mut usize| number_line(data, at).map_err(|_| SparseMapFault::Damaged);
        let mut at = 0;
        let Some(count) = number_line(data, &mut at)? else { return Ok(None) };
        let count =
            usize::try_from(count).ok().filter(|&count| count <= max_pieces).ok_or(SparseMapFault::TooManyPieces)?;
        let mut map = Vec::new();
        for _ in 0..count {
            let (Some(offset), Some(len)) = (number_line(data, &mut at)?, number_line(data, &mut at)?) else {
                return Ok(None);
            };
            map.push((offset, len));
        }
        Ok(Some((map, at.next_multiple_of(BLOCK_LEN) as u64)))
    }
}

/// Parses the number on the line at `at` and moves `at` past it. Returns `None` if the line is not complete.
fn number_line(data: &[u8], at: &mut usize) -> Result<Option<u64>, &'static str> {
    let rest = data.get(*at..).unwrap_or(&[]);
    match rest.iter().take(21).position(|&b| b == b'\n') {
        Some(end) => {
            *at += end + 1;
            decimal(rest.get(..end).unwrap_or(&[])).map(Some).ok_or(DAMAGED_MAP)
        }
        None if rest.len() > 20 => Err(DAMAGED_MAP),
        None => Ok(None),
    }
}
