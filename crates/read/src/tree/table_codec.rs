//! A [`VersionTable`] as bytes and back. What can be worked out from the rest is not stored: links between siblings and versions,
//! and the table of names. Reading takes any bytes: what is no table gives `None`.

use std::io::{self, Read, Write};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::hash_table::Entry;

use super::attributes::{OwnerRecord, VersionKind};
use super::ids::{NONE, NodeId, index};
use super::version_table::{EXACT, PathNode, UNBOUNDED, UNKNOWN, VersionRecord, VersionTable};
use dupfs_cache::index::bytes::{Reader, Writer};

/// Items taken from the table at a time, so that its lock is not held while they are written.
const BATCH: usize = 8192;
/// Bytes of a version.
const VERSION: usize = 8 + 8 + 4 + 4 + 4 + 2 + 1;
/// Bytes of a node: parent, start of the name.
const NODE: usize = 8;
/// Sets, nodes, versions, bytes of names, bytes of owners, links and devices.
const COUNTS: usize = 5 * 8;

/// How much of a table there is to write.
struct PublishedSizes {
    sets: usize,
    nodes: usize,
    versions: usize,
    names: usize,
    attributes: Vec<u8>,
}

impl VersionTable {
    /// Whether the table is all that its sets say: nothing was lost or guessed.
    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.rebuilt.is_empty()
    }

    fn extent(&self) -> PublishedSizes {
        let sets = index(self.published);
        let start = |starts: &[u32], all: usize| starts.get(sets).map_or(all, |&s| index(s));
        let nodes = start(&self.node_starts, self.nodes.len());
        let names = self.nodes.get(nodes).map_or(self.names.len(), |next| index(next.name_start));
        let versions = start(&self.set_starts, self.versions.len());
        PublishedSizes { sets, nodes, versions, names, attributes: self.side_bytes() }
    }

    fn side_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(self.attributes.owners.len() as u64);
        for OwnerRecord { uid, gid, uname, gname } in &self.attributes.owners {
            writer.number((*uid).into());
            writer.number((*gid).into());
            writer.bytes(uname);
            writer.bytes(gname);
        }
        writer.number(self.attributes.links.len() as u64);
        let mut id = 0u32;
        while let Some(target) = self.attributes.links.get(id) {
            writer.bytes(target);
            id = id.saturating_add(1);
        }
        writer.number(self.attributes.devices.len() as u64);
        for (major, minor) in &self.attributes.devices {
            writer.number((*major).into());
            writer.number((*minor).into());
        }
        writer.out
    }
}

/// Writes the published sets of `table`, which may grow meanwhile.
///
/// # Errors
/// Of `out`.
pub(super) fn encode(table: &RwLock<VersionTable>, out: &mut dyn Write) -> io::Result<()> {
    let read = || table.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let extent = read().extent();
    let counts = [extent.sets, extent.nodes, extent.versions, extent.names, extent.attributes.len()];
    for count in counts {
        out.write_all(&(count as u64).to_le_bytes())?;
    }
    out.write_all(&extent.attributes)?;
    let starts = {
        let table = read();
        let pairs = table.set_starts.iter().zip(&table.node_starts).take(extent.sets);
        pairs.flat_map(|(set, node)| [set.to_le_bytes(), node.to_le_bytes()].concat()).collect::<Vec<u8>>()
    };
    out.write_all(&starts)?;
    let mut bytes = Vec::with_capacity(BATCH * VERSION);
    for (from, to) in batches(extent.nodes, BATCH) {
        bytes.clear();
        for node in read().nodes.get(from..to).unwrap_or(&[]) {
            bytes.extend_from_slice(&node.parent.to_le_bytes());
            bytes.extend_from_slice(&node.name_start.to_le_bytes());
        }
        out.write_all(&bytes)?;
    }
    for (from, to) in batches(extent.names, BATCH * VERSION) {
        bytes.clear();
        bytes.extend_from_slice(read().names.get(from..to).unwrap_or(&[]));
        out.write_all(&bytes)?;
    }
    for (from, to) in batches(extent.versions, BATCH) {
        bytes.clear();
        for version in read().versions.get(from..to).unwrap_or(&[]) {
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

fn batches(count: usize, batch: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).step_by(batch).map(move |from| (from, from.saturating_add(batch).min(count)))
}

/// Reads the `len` bytes of a table.
pub(super) fn decode(input: &mut dyn Read, len: u64) -> Option<VersionTable> {
    let mut counts = [0; COUNTS];
    input.read_exact(&mut counts).ok()?;
    let mut fields = counts.as_chunks::<8>().0.iter().map(|field| usize::try_from(u64::from_le_bytes(*field)).ok());
    let mut next = || fields.next().flatten();
    let (sets, nodes, versions, names, attributes) = (next()?, next()?, next()?, next()?, next()?);
    let sizes = [(sets, 8), (nodes, NODE), (versions, VERSION), (names, 1), (attributes, 1), (COUNTS, 1)];
    let whole = sizes.iter().try_fold(0usize, |sum, (count, size)| sum.checked_add(count.checked_mul(*size)?))?;
    // Nothing is allocated that the file does not hold.
    if whole as u64 != len || sets == 0 || nodes == 0 || [nodes, versions, names].iter().any(|&n| n >= index(NONE)) {
        return None;
    }
    let mut table = VersionTable::default();
    read_side(&mut table, &read_vec(input, attributes)?)?;
    read_starts(&mut table, input, sets, (nodes, versions))?;
    read_nodes(&mut table, input, (nodes, names))?;
    read_versions(&mut table, input, versions)?;
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
    for (from, to) in batches(count, BATCH) {
        let bytes = buffer.get_mut(..to.saturating_sub(from).checked_mul(N)?)?;
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

fn read_side(table: &mut VersionTable, bytes: &[u8]) -> Option<()> {
    let mut reader = Reader::new(bytes);
    for number in 0..reader.count()? {
        let (uid, gid, uname, gname) = reader.owner()?;
        let id = table.attributes.owner(OwnerRecord { uid, gid, uname, gname }).ok()?;
        (index(id) == number).then_some(())?;
    }
    for _ in 0..reader.count()? {
        table.attributes.links.push(reader.bytes()?).ok()?;
    }
    for _ in 0..reader.count()? {
        table.attributes.devices.push((reader.small()?, reader.small()?));
    }
    reader.is_at_end().then_some(())
}

fn read_starts(
    table: &mut VersionTable,
    input: &mut dyn Read,
    sets: usize,
    (nodes, versions): (usize, usize),
) -> Option<()> {
    let (mut last_version, mut last_node) = (0, 1);
    read_items::<8>(input, sets, &mut |bytes| {
        let mut bytes = &bytes[..];
        let (version, node) = (u32::from_le_bytes(field(&mut bytes)?), u32::from_le_bytes(field(&mut bytes)?));
        let first = table.set_starts.is_empty() && (version, node) != (0, 1);
        if first || version < last_version || node < last_node || index(version) > versions || index(node) > nodes {
            return None;
        }
        (last_version, last_node) = (version, node);
        table.set_starts.push(version);
        table.node_starts.push(node);
        Some(())
    })?;
    table.published = u32::try_from(sets).ok()?;
    Some(())
}

fn read_nodes(table: &mut VersionTable, input: &mut dyn Read, (count, names): (usize, usize)) -> Option<()> {
    let mut nodes = Vec::with_capacity(count);
    let mut last_start = 0;
    read_items::<NODE>(input, count, &mut |bytes| {
        let mut bytes = &bytes[..];
        let (parent, name_start) = (u32::from_le_bytes(field(&mut bytes)?), u32::from_le_bytes(field(&mut bytes)?));
        // A parent comes before its children: there is no way around in a circle. Only the root has no name.
        let id = nodes.len();
        let fits = if id == 0 { parent == NONE && name_start == 0 } else { index(parent) < id };
        let named = if id < 2 { name_start == 0 } else { name_start > last_start };
        if !fits || !named || index(name_start) > names || (id > 0 && index(name_start) == names) {
            return None;
        }
        last_start = name_start;
        nodes.push(PathNode { parent, name_start, first_child: NONE, next_sibling: NONE, newest: NONE });
        Some(())
    })?;
    if count == 1 && names != 0 {
        return None;
    }
    table.nodes = nodes;
    table.names = read_vec(input, names)?;
    link_children(table)?;
    enter_names(table)
}

/// Links siblings in the order of their numbers, as they were added.
fn link_children(table: &mut VersionTable) -> Option<()> {
    for id in (1..table.nodes.len()).rev() {
        let parent = table.nodes.get(id)?.parent;
        let number = u32::try_from(id).ok()?;
        let after = std::mem::replace(&mut table.nodes.get_mut(index(parent))?.first_child, number);
        table.nodes.get_mut(id)?.next_sibling = after;
    }
    Some(())
}

fn enter_names(table: &mut VersionTable) -> Option<()> {
    let count = table.nodes.len();
    let mut by_name = hashbrown::HashTable::with_capacity(count);
    for id in 1..u32::try_from(count).ok()? {
        let (parent, name) = (table.nodes.get(index(id))?.parent, table.name(NodeId(id)));
        if matches!(name, b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return None;
        }
        let hash = |id: u32| table.nodes.get(index(id)).map_or(0, |n| table.hash(n.parent, table.name(NodeId(id))));
        match by_name.entry(table.hash(parent, name), |&other| table.is_called(other, parent, name), |&id| hash(id)) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(slot) => slot.insert(id),
        };
    }
    table.by_name = by_name;
    Some(())
}

fn read_versions(table: &mut VersionTable, input: &mut dyn Read, count: usize) -> Option<()> {
    table.versions.reserve_exact(count);
    // The end of the set that a version is of, in versions and in nodes.
    let (mut next_set, mut versions_end, mut nodes_end) = (0usize, 0usize, 0usize);
    read_items::<VERSION>(input, count, &mut |bytes| {
        while table.versions.len() >= versions_end {
            next_set = next_set.checked_add(1).filter(|&next| next <= table.set_starts.len())?;
            versions_end = table.set_starts.get(next_set).map_or(count, |&start| index(start));
            nodes_end = table.node_starts.get(next_set).map_or(table.nodes.len(), |&start| index(start));
        }
        let version = read_version(bytes).filter(|v| index(v.node) < nodes_end && is_sound(table, v))?;
        table.add_version(version).ok()
    })
}

fn read_version(bytes: &[u8; VERSION]) -> Option<VersionRecord> {
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

fn is_sound(table: &VersionTable, version: &VersionRecord) -> bool {
    let size = version.size.load(Ordering::Relaxed);
    let sized = match (version.kind, version.aux) {
        (VersionKind::File, UNBOUNDED) => size == UNKNOWN || size & EXACT != 0,
        (VersionKind::File, span) => size & EXACT != 0 || (size < UNKNOWN && size >= span.into()),
        _ => size == UNKNOWN,
    };
    let owned = if version.kind == VersionKind::Deleted {
        version.owner == NONE
    } else {
        index(version.owner) < table.attributes.owners.len()
    };
    sized && owned && version.mode <= 0o7777 && size != u64::MAX && table.attributes.knows(version.kind, version.aux)
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;
    use super::*;

    fn bytes(table: VersionTable) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&RwLock::new(table), &mut out).unwrap();
        out
    }

    fn parsed(bytes: &[u8]) -> Option<VersionTable> {
        decode(&mut { bytes }, bytes.len() as u64)
    }

    #[test]
    fn a_table_comes_back_as_it_was() {
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
        // and it grows on as the other would
        let (mut grown, path) = (before, super::super::tests::path("a/d/new"));
        for table in [&mut back, &mut grown] {
            table.begin_set().unwrap();
            table.push(&path, super::super::version_table::Change::Deleted).unwrap();
            table.publish_set();
        }
        assert_eq!(bytes(back), bytes(grown));
    }

    #[test]
    fn a_set_that_is_not_complete_is_not_written() {
        let mut growing = table();
        growing.begin_set().unwrap();
        growing.push(&super::super::tests::path("new/name"), super::super::version_table::Change::Deleted).unwrap();
        assert_eq!(bytes(growing), bytes(table()));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let whole = bytes(table());
        for len in 0..whole.len() {
            assert!(parsed(&whole[..len]).is_none(), "cut to {len} bytes");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(parsed(&longer).is_none());
        // No flipped bit makes a panic, an endless loop or a table that does not come back as it was read.
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
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
