//! Encodes a [`VersionTable`] as bytes and decodes it. Links between siblings and versions and the lookup by name are derived
//! when it is decoded. Decoding takes any bytes and returns `None` for those that are no table.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::attributes::{AttributeTable, OwnerRecord, VersionKind};
use super::ids::{NONE, list_index};
use super::path_tree::{PathTree, PathTreeBuilder};
use super::version_record::VersionRecord;
use super::version_table::{SetStart, VersionTable};
use crate::meta_encoding::decode_owner;
use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};

/// Items taken from the table at a time, so that its lock is not held while they are written.
const BATCH: usize = 8192;
/// Bytes of a version.
const VERSION_BYTES: usize = 8 + 8 + 4 + 4 + 4 + 2 + 1;
/// Bytes of a node: parent, start of the name.
const NODE_BYTES: usize = 8;
/// Bytes of a set: its first version, its first new node.
const SET_BYTES: usize = 8;
/// Sets, nodes, versions, bytes of names, bytes of owners, links and devices.
const COUNTS_BYTES: usize = 5 * 8;

/// The part of a table that belongs to its first sets: numbers of items, and the encoded attributes.
struct TablePart {
    sets: usize,
    nodes: usize,
    versions: usize,
    names: usize,
    attributes: Vec<u8>,
}

impl TablePart {
    fn of(table: &VersionTable, depth: u32) -> Self {
        let sets = list_index(depth.min(table.published));
        let next = table.starts.get(sets);
        let nodes = next.map_or(table.paths.len(), |start| list_index(start.node));
        let versions = next.map_or(table.versions.len(), |start| list_index(start.version));
        let names = table.paths.names_len(nodes);
        Self { sets, nodes, versions, names, attributes: encode_attributes(&table.attributes) }
    }
}

/// Writes the first `depth` sets of `table`, as far as they are published. The table may grow meanwhile.
///
/// # Errors
/// Of `out`.
pub(super) fn encode(table: &RwLock<VersionTable>, depth: u32, out: &mut dyn Write) -> io::Result<()> {
    let read = || table.read().unwrap_or_else(PoisonError::into_inner);
    let part = TablePart::of(&read(), depth);
    for count in [part.sets, part.nodes, part.versions, part.names, part.attributes.len()] {
        out.write_all(&(count as u64).to_le_bytes())?;
    }
    out.write_all(&part.attributes)?;
    let mut bytes = Vec::with_capacity(BATCH * VERSION_BYTES);
    for start in read().starts.iter().take(part.sets) {
        bytes.extend_from_slice(&start.version.to_le_bytes());
        bytes.extend_from_slice(&start.node.to_le_bytes());
    }
    out.write_all(&bytes)?;
    for range in batches(part.nodes, BATCH) {
        bytes.clear();
        for (parent, name_start) in read().paths.raw_nodes(range) {
            bytes.extend_from_slice(&parent.to_le_bytes());
            bytes.extend_from_slice(&name_start.to_le_bytes());
        }
        out.write_all(&bytes)?;
    }
    for range in batches(part.names, BATCH * VERSION_BYTES) {
        bytes.clear();
        bytes.extend_from_slice(read().paths.raw_names(range));
        out.write_all(&bytes)?;
    }
    for range in batches(part.versions, BATCH) {
        bytes.clear();
        for version in read().versions.get(range).unwrap_or(&[]) {
            bytes.extend_from_slice(&version.size.load(Ordering::Acquire).to_le_bytes());
            bytes.extend_from_slice(&version.mtime.to_le_bytes());
            bytes.extend_from_slice(&version.node.to_le_bytes());
            bytes.extend_from_slice(&version.owner.to_le_bytes());
            bytes.extend_from_slice(&version.aux.to_le_bytes());
            bytes.extend_from_slice(&version.mode.to_le_bytes());
            bytes.push(version.kind.tag());
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

fn encode_attributes(attributes: &AttributeTable) -> Vec<u8> {
    let mut encoder = RecordEncoder::default();
    encoder.number(attributes.owners.len() as u64);
    for OwnerRecord { uid, gid, uname, gname } in &attributes.owners {
        encoder.number((*uid).into());
        encoder.number((*gid).into());
        encoder.bytes(uname);
        encoder.bytes(gname);
    }
    encoder.number(attributes.links.len() as u64);
    let mut id = 0u32;
    while let Some(target) = attributes.links.get(id) {
        encoder.bytes(target);
        id = id.saturating_add(1);
    }
    encoder.number(attributes.devices.len() as u64);
    for (major, minor) in &attributes.devices {
        encoder.number((*major).into());
        encoder.number((*minor).into());
    }
    encoder.out
}

fn batches(count: usize, batch: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(batch).map(move |from| from..from.saturating_add(batch).min(count))
}

/// Decodes a table of `len` bytes.
pub(super) fn decode(input: &mut dyn Read, len: u64) -> Option<VersionTable> {
    let mut counts = [0; COUNTS_BYTES];
    input.read_exact(&mut counts).ok()?;
    let mut fields = counts.as_chunks::<8>().0.iter().map(|field| usize::try_from(u64::from_le_bytes(*field)).ok());
    let mut next = || fields.next().flatten();
    let (sets, nodes, versions, names, attributes) = (next()?, next()?, next()?, next()?, next()?);
    let sizes = [
        (sets, SET_BYTES),
        (nodes, NODE_BYTES),
        (versions, VERSION_BYTES),
        (names, 1),
        (attributes, 1),
        (COUNTS_BYTES, 1),
    ];
    let whole = sizes.iter().try_fold(0usize, |sum, (count, size)| sum.checked_add(count.checked_mul(*size)?))?;
    // No more is allocated than the file contains.
    if whole as u64 != len
        || sets == 0
        || nodes == 0
        || [sets, nodes, versions, names].iter().any(|&n| n >= list_index(NONE))
    {
        return None;
    }
    let attributes = decode_attributes(&read_vec(input, attributes)?)?;
    let starts = decode_starts(input, sets, (nodes, versions))?;
    let paths = decode_paths(input, (nodes, names))?;
    let mut table = VersionTable::with_sets(paths, attributes, starts, versions)?;
    decode_versions(&mut table, input, versions)?;
    Some(table)
}

fn read_vec(input: &mut dyn Read, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    input.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Reads `count` items of `N` bytes.
fn read_items<const N: usize>(
    input: &mut dyn Read,
    count: usize,
    take: &mut dyn FnMut(&[u8; N]) -> Option<()>,
) -> Option<()> {
    let mut buffer = vec![0; BATCH.min(count).checked_mul(N)?];
    for range in batches(count, BATCH) {
        let bytes = buffer.get_mut(..range.len().checked_mul(N)?)?;
        input.read_exact(bytes).ok()?;
        bytes.as_chunks::<N>().0.iter().try_for_each(&mut *take)?;
    }
    Some(())
}

fn field<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

fn decode_attributes(bytes: &[u8]) -> Option<AttributeTable> {
    let mut attributes = AttributeTable::default();
    let mut decoder = RecordDecoder::new(bytes);
    for number in 0..decoder.count()? {
        let (uid, gid, uname, gname) = decode_owner(&mut decoder)?;
        let id = attributes.owner(OwnerRecord { uid, gid, uname, gname }).ok()?;
        (list_index(id) == number).then_some(())?;
    }
    for _ in 0..decoder.count()? {
        attributes.links.push(decoder.bytes()?).ok()?;
    }
    for _ in 0..decoder.count()? {
        attributes.devices.push((decoder.number_u32()?, decoder.number_u32()?));
    }
    decoder.is_at_end().then_some(attributes)
}

fn decode_starts(input: &mut dyn Read, sets: usize, (nodes, versions): (usize, usize)) -> Option<Vec<SetStart>> {
    let mut starts: Vec<SetStart> = Vec::new();
    let mut last = SetStart { version: 0, node: 1 };
    read_items::<SET_BYTES>(input, sets, &mut |bytes| {
        let mut bytes = &bytes[..];
        let (version, node) = (u32::from_le_bytes(field(&mut bytes)?), u32::from_le_bytes(field(&mut bytes)?));
        let start = SetStart { version, node };
        let fits = if starts.is_empty() { start == last } else { version >= last.version && node >= last.node };
        if !fits || list_index(version) > versions || list_index(node) > nodes {
            return None;
        }
        last = start;
        starts.push(start);
        Some(())
    })?;
    Some(starts)
}

fn decode_paths(input: &mut dyn Read, (nodes, names): (usize, usize)) -> Option<PathTree> {
    let mut builder = PathTreeBuilder::new(nodes, names);
    read_items::<NODE_BYTES>(input, nodes, &mut |bytes| {
        let mut bytes = &bytes[..];
        builder.push(u32::from_le_bytes(field(&mut bytes)?), u32::from_le_bytes(field(&mut bytes)?))
    })?;
    builder.finish(read_vec(input, names)?)
}

fn decode_versions(table: &mut VersionTable, input: &mut dyn Read, count: usize) -> Option<()> {
    // The end of the set that a version is of, in versions and in nodes.
    let (mut next_set, mut versions_end, mut nodes_end) = (0usize, 0usize, 0usize);
    read_items::<VERSION_BYTES>(input, count, &mut |bytes| {
        while table.versions.len() >= versions_end {
            next_set = next_set.checked_add(1).filter(|&next| next <= table.starts.len())?;
            let next = table.starts.get(next_set);
            versions_end = next.map_or(count, |start| list_index(start.version));
            nodes_end = next.map_or(table.paths.len(), |start| list_index(start.node));
        }
        let version = decode_version(bytes)?;
        let refers =
            list_index(version.node) < nodes_end && table.attributes.has(version.kind, version.owner, version.aux);
        table.add_version(Some(version).filter(|version| refers && version.is_sound())?).ok()
    })
}

fn decode_version(bytes: &[u8; VERSION_BYTES]) -> Option<VersionRecord> {
    let mut bytes = &bytes[..];
    let size = AtomicU64::new(u64::from_le_bytes(field(&mut bytes)?));
    let mtime = i64::from_le_bytes(field(&mut bytes)?);
    let node = u32::from_le_bytes(field(&mut bytes)?);
    let owner = u32::from_le_bytes(field(&mut bytes)?);
    let aux = u32::from_le_bytes(field(&mut bytes)?);
    let mode = u16::from_le_bytes(field(&mut bytes)?);
    let [tag] = field(&mut bytes)?;
    Some(VersionRecord { size, mtime, older: NONE, node, owner, aux, mode, kind: VersionKind::of_tag(tag)? })
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;
    use super::*;
    use crate::tree::NodeId;

    fn bytes(table: VersionTable) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&RwLock::new(table), u32::MAX, &mut out).unwrap();
        out
    }

    fn parsed(bytes: &[u8]) -> Option<VersionTable> {
        decode(&mut { bytes }, bytes.len() as u64)
    }

    #[test]
    fn an_encoded_table_is_decoded_unchanged() {
        let first = bytes(table());
        let back = parsed(&first).unwrap();
        assert_eq!(bytes(back), first);
        let (mut back, before) = (parsed(&first).unwrap(), table());
        for id in 0..u32::try_from(before.len()).unwrap() {
            let node = NodeId(id);
            assert_eq!(back.path(node), before.path(node));
            assert_eq!(back.find(&before.path(node)), Some(node));
            assert_eq!(back.first_child(node), before.first_child(node));
            assert_eq!(back.next_sibling(node), before.next_sibling(node));
            for depth in 0..4 {
                let meta =
                    |table: &VersionTable| table.version(node, depth).map(|v| (v, table.meta(v), table.bounds(v)));
                assert_eq!(meta(&back), meta(&before), "{:?} at depth {depth}", before.path(node));
            }
        }
        // and it grows as the other does
        let (mut grown, path) = (before, super::super::tests::path("a/d/new"));
        for table in [&mut back, &mut grown] {
            table.begin_set().unwrap();
            table.push(&path, super::super::version_table::Change::Deleted).unwrap();
            table.publish_set().unwrap();
        }
        assert_eq!(bytes(back), bytes(grown));
    }

    /// The index contains these bytes: for another encoding, raise VERSION in crates/cache/src/index/framed_file.rs.
    #[test]
    fn the_bytes_of_a_table_are_stable() {
        use super::super::tests::{path, present};
        use super::super::version_table::Change;
        use dupfs_format::EntryKind;
        let mut table = VersionTable::default();
        let first = [
            (path(""), present(EntryKind::Dir, None)),
            (path("ab"), present(EntryKind::File, Some((1, 2048)))),
            (path("d"), present(EntryKind::BlockDevice(8, 300), None)),
            (path("d/l"), present(EntryKind::Symlink((*b"to").into()), None)),
        ];
        let second = [(path("ab"), Change::Deleted), (path("f"), present(EntryKind::File, None))];
        for set in [&first[..], &second] {
            table.begin_set().unwrap();
            set.iter().for_each(|(path, change)| table.push(path, change.clone()).unwrap());
            table.publish_set().unwrap();
        }
        assert!(table.set_exact_size(table.version(table.find(&path("ab")).unwrap(), 1).unwrap(), 0x0102));
        let count = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0];
        let none = [0xff; 4];
        let unknown = b"\xff\xff\xff\xff\xff\xff\xff\x7f";
        let mtime = b"\xf9\xff\xff\xff\xff\xff\xff\xff";
        let expected: &[&[u8]] = &[
            &[count(2), count(5), count(6), count(5), count(23)].concat(),
            b"\x01\xe8\x07\x64\x04user\x05group",
            b"\x01\x02to",
            b"\x01\x08\xac\x02",
            // Sets: the first version, the first new node.
            &[0, 0, 0, 0, 1, 0, 0, 0],
            &[4, 0, 0, 0, 4, 0, 0, 0],
            // Nodes: the parent, the start of the name.
            &[&none[..], &[0, 0, 0, 0]].concat(),
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 0, 0, 0],
            &[2, 0, 0, 0, 3, 0, 0, 0],
            &[0, 0, 0, 0, 4, 0, 0, 0],
            b"abdlf",
            // Versions: size, time, node, owner, aux, mode, kind.
            &[&unknown[..], mtime, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 1, 2]].concat(),
            &[b"\x02\x01\0\0\0\0\0\x80", &mtime[..], &[1, 0, 0, 0, 0, 0, 0, 0, 0xff, 7, 0, 0, 0xa0, 1, 1]].concat(),
            &[&unknown[..], mtime, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 1, 6]].concat(),
            &[&unknown[..], mtime, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 1, 3]].concat(),
            &[&unknown[..], &count(0), &[1, 0, 0, 0], &none, &[0, 0, 0, 0, 0, 0, 0]].concat(),
            &[&unknown[..], mtime, &[4, 0, 0, 0, 0, 0, 0, 0], &none, &[0xa0, 1, 1]].concat(),
        ];
        assert_eq!(bytes(table), expected.concat());
    }

    #[test]
    fn a_set_that_is_not_complete_is_not_written() {
        let mut growing = table();
        growing.begin_set().unwrap();
        growing.push(&super::super::tests::path("new/name"), super::super::version_table::Change::Deleted).unwrap();
        assert_eq!(bytes(growing), bytes(table()));
    }

    #[test]
    fn bytes_that_encode_no_version_table_are_refused() {
        let whole = bytes(table());
        for len in 0..whole.len() {
            assert!(parsed(&whole[..len]).is_none(), "cut to {len} bytes");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(parsed(&longer).is_none());
        // No flipped bit causes a panic, an endless loop or a table that is encoded differently again.
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                crate::tree::fuzz_decode_table(&flipped);
                if let Some(table) = parsed(&flipped) {
                    for id in 0..u32::try_from(table.len()).unwrap() {
                        table.path(NodeId(id));
                        table.is_implied_dir(NodeId(id), 2);
                        table.file_history(NodeId(id), 2);
                    }
                    assert_eq!(bytes(table), flipped, "byte {at}, bit {bit}");
                }
            }
        }
    }
}
