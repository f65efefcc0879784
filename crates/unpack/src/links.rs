//! Symbolic links in archives, which lead only into their archive.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::archive_table::{ArchiveTable, NodeKey};
use dupfs_format::EntryKind;

/// Upper bound of the symbolic links that are followed to resolve one.
const FOLLOWED: usize = 40;

/// Returns true if a target leads to somewhere below the link's own directory, or up as far as the archive's root, whatever is on
/// the way: it is relative, and `..` is only at its front, at most `depth` times.
pub(super) fn is_plain(target: &[u8], depth: usize) -> bool {
    if target.first() == Some(&b'/') {
        return false;
    }
    let mut names = target.split(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let ups = names.by_ref().take_while(|name| *name == b"..").count();
    // The name that ended the count is no `..`; none may follow.
    ups <= depth && names.all(|name| name != b"..")
}

/// The target that the symbolic link `link` is shown with: its own if that stays in the archive; else, with the archive's
/// root as the root of everything, a relative one that leads to the same target.
pub(super) fn inside<'a>(table: &'a ArchiveTable, link: NodeKey) -> Option<Cow<'a, [u8]>> {
    let EntryKind::Symlink(target) = &table.entry(link)?.meta.kind else { return None };
    let depth = table.path(link).len().saturating_sub(1);
    if is_plain(target, depth) {
        return Some(Cow::Borrowed(target));
    }
    let names = walk(table, link, target);
    let mut out = vec![b"..".as_slice(); depth];
    out.extend(names.iter().map(Vec::as_slice));
    Some(Cow::Owned(if out.is_empty() { b".".to_vec() } else { out.join(&b'/') }))
}

/// Names from the root to where `target` of `link` leads; the last of them is not followed.
fn walk(table: &ArchiveTable, link: NodeKey, target: &[u8]) -> Vec<Vec<u8>> {
    let split = |target: &[u8]| -> Vec<Vec<u8>> { target.split(|&b| b == b'/').map(<[u8]>::to_vec).collect() };
    let above = |link: NodeKey| -> Vec<(Vec<u8>, Option<NodeKey>)> {
        let mut path = Vec::new();
        let mut at = table.node(link).map_or(NodeKey::ROOT, |node| node.parent);
        while let Some(node) = table.node(at).filter(|_| at != NodeKey::ROOT) {
            path.push((node.name.to_vec(), Some(at)));
            at = node.parent;
        }
        path.reverse();
        path
    };
    let mut at = if target.first() == Some(&b'/') { Vec::new() } else { above(link) };
    let mut left: VecDeque<Vec<u8>> = split(target).into();
    let mut followed = 0;
    while let Some(name) = left.pop_front() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at.pop();
                continue;
            }
            _ => {}
        }
        let dir = at.last().map_or(Some(NodeKey::ROOT), |(_, node)| *node);
        let node = dir.and_then(|dir| table.child(dir, &name));
        let meta = node.and_then(|node| table.entry(node)).map(|entry| &entry.meta.kind);
        match (node, meta) {
            (Some(node), Some(EntryKind::Symlink(target))) if !left.is_empty() && followed < FOLLOWED => {
                followed += 1;
                at = if target.first() == Some(&b'/') { Vec::new() } else { above(node) };
                for name in split(target).into_iter().rev() {
                    left.push_front(name);
                }
            }
            _ => at.push((name, node)),
        }
    }
    at.into_iter().map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::archive_table::member::{ArchiveEntry, ArchiveMember, MemberData};
    use super::*;
    use dupfs_format::EntryMeta;

    fn entry(kind: EntryKind) -> ArchiveEntry {
        let (uname, gname) = Default::default();
        ArchiveEntry {
            meta: EntryMeta { kind, mode: 0o644, uid: 0, gid: 0, uname, gname, mtime: 0 },
            data: MemberData::Nothing,
        }
    }

    fn table(members: &[(&str, &str)]) -> ArchiveTable {
        let mut table = ArchiveTable::new(1000, 100_000);
        for (path, target) in members {
            let kind = if target.is_empty() { EntryKind::File } else { EntryKind::Symlink(target.as_bytes().into()) };
            table.insert(ArchiveMember { path: path.as_bytes(), entry: entry(kind), hard_link: None }).unwrap();
        }
        table
    }

    fn shown(members: &[(&str, &str)]) -> String {
        let table = table(members);
        let link = NodeKey(u32::try_from(table.len() - 1).unwrap());
        String::from_utf8(inside(&table, link).unwrap().into_owned()).unwrap()
    }

    #[test]
    fn targets_within_the_archive_are_unchanged() {
        for target in ["x", "../x", "./a/b", "../../b/../c".split("/..").next().unwrap(), "a/b/"] {
            assert_eq!(shown(&[("d/e/link", target)]), target);
        }
    }

    #[test]
    fn the_archives_root_is_the_root_of_everything() {
        assert_eq!(shown(&[("d/e/link", "/etc/passwd")]), "../../etc/passwd");
        assert_eq!(shown(&[("d/e/link", "../../../../etc/passwd")]), "../../etc/passwd");
        assert_eq!(shown(&[("link", "/")]), ".");
        assert_eq!(shown(&[("d/link", "a/../../../b")]), "../b");
    }

    #[test]
    fn links_to_the_directory_itself_do_not_lead_out_of_the_archive() {
        let climb = "l/l/l/l/../../../../etc/passwd";
        assert_eq!(shown(&[("l", "."), ("evil", climb)]), "etc/passwd");
        // A cycle of links.
        let ended = shown(&[("a", "b/x"), ("b", "a/x"), ("evil", "a/../../../etc")]);
        assert!(!ended.contains(".."), "{ended}");
    }
}
