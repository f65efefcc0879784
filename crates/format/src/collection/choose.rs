//! Chooses one of several backups in one store, by the prefixes of their names (`--file-prefix` and its variants).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dupfs_base::escape_bytes;

use super::error::CollectionError;
use super::group::NamedObject;
use crate::ObjectInfo;
use crate::name::{FileRole, NameKind, NamePrefixes, SetTimes, parse_name};

/// The prefixes that the user gives, by duplicity's options. If any option is given, the others count as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixOptions {
    /// `--file-prefix`: the prefix of every name.
    pub file_prefix: Option<String>,
    /// `--file-prefix-archive`: follows `file_prefix` in the names of volumes.
    pub archive: Option<String>,
    /// `--file-prefix-manifest`: follows `file_prefix` in the names of manifests.
    pub manifest: Option<String>,
    /// `--file-prefix-signature`: follows `file_prefix` in the names of signature archives.
    pub signature: Option<String>,
}

/// Another backup in the same store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherBackup {
    /// The options that choose it. `None` if its names have no prefix.
    pub options: Option<String>,
    /// The number of its objects.
    pub objects: usize,
    /// True if any of its manifests is encrypted.
    pub encrypted: bool,
}

/// The chosen backup.
#[derive(Debug)]
pub(super) struct ChosenBackup<'a> {
    pub(super) objects: Vec<NamedObject<'a>>,
    pub(super) prefixes: NamePrefixes,
    pub(super) others: Vec<OtherBackup>,
    /// The number of objects that are not duplicity's.
    pub(super) foreign: usize,
}

/// Upper bound of the number of backups that one message names.
const MAX_NAMED_BACKUPS: usize = 8;

impl PrefixOptions {
    /// Returns the complete prefixes. Returns `None` if no option is given.
    fn prefixes(&self) -> Option<NamePrefixes> {
        let Self { file_prefix, archive, manifest, signature } = self;
        let is_any_given = [file_prefix, archive, manifest, signature].iter().any(|option| option.is_some());
        let complete = |own: &Option<String>| {
            format!("{}{}", file_prefix.as_deref().unwrap_or_default(), own.as_deref().unwrap_or_default())
        };
        is_any_given.then(|| NamePrefixes {
            archive: complete(archive),
            manifest: complete(manifest),
            signature: complete(signature),
        })
    }
}

impl From<NamePrefixes> for PrefixOptions {
    /// Returns the options that choose exactly these prefixes.
    fn from(prefixes: NamePrefixes) -> Self {
        let NamePrefixes { archive, manifest, signature } = prefixes;
        Self { file_prefix: None, archive: Some(archive), manifest: Some(manifest), signature: Some(signature) }
    }
}

/// Returns duplicity's option for the prefix of a kind of file.
fn option_of(kind: NameKind) -> &'static str {
    match kind {
        NameKind::Volume => "--file-prefix-archive",
        NameKind::Manifest => "--file-prefix-manifest",
        NameKind::Signature => "--file-prefix-signature",
    }
}

/// Chooses the backup among `objects` by `options`. With `require_encryption`, one without encrypted manifests is chosen only
/// if there is no other.
pub(super) fn choose_backup<'a>(
    objects: &'a [ObjectInfo],
    options: &PrefixOptions,
    require_encryption: bool,
) -> Result<ChosenBackup<'a>, CollectionError> {
    let named = |object: &'a ObjectInfo| parse_name(&object.name).map(|name| NamedObject { name, object });
    let named: Vec<NamedObject<'a>> = objects.iter().filter_map(named).collect();
    let backups = find_backups(&named);
    match options.prefixes() {
        Some(prefixes) => choose_by_prefixes(objects, prefixes, &backups),
        None if named.is_empty() => Err(CollectionError::NoBackup { objects: objects.len() }),
        None => choose_only(named, objects.len(), backups, require_encryption),
    }
}

fn choose_by_prefixes<'a>(
    objects: &'a [ObjectInfo],
    prefixes: NamePrefixes,
    backups: &[PrefixedBackup<'a>],
) -> Result<ChosenBackup<'a>, CollectionError> {
    // Parsed again with the prefix, as duplicity does it for any prefix.
    let named = |object: &'a ObjectInfo| prefixes.parse(&object.name).map(|name| NamedObject { name, object });
    let members: Vec<NamedObject<'a>> = objects.iter().filter_map(named).collect();
    if members.is_empty() {
        if backups.is_empty() {
            return Err(CollectionError::NoBackup { objects: objects.len() });
        }
        let requested = match backup_options(&prefixes) {
            Some(options) => format!("with {options} here"),
            None => "without a prefix here".to_owned(),
        };
        return Err(CollectionError::NoSuchPrefix { requested, found: describe_backups(backups) });
    }
    let foreign = objects.len() - members.len();
    Ok(ChosenBackup { objects: members, prefixes, others: Vec::new(), foreign })
}

fn choose_only<'a>(
    named: Vec<NamedObject<'a>>,
    listed: usize,
    backups: Vec<PrefixedBackup<'a>>,
    require_encryption: bool,
) -> Result<ChosenBackup<'a>, CollectionError> {
    let foreign = listed - named.len();
    // Leftover files without any manifest make a choice necessary only if there is nothing else.
    let counts =
        |backup: &PrefixedBackup<'_>| backup.has_manifest() && (!require_encryption || backup.has_encrypted_manifest());
    let any_counts = backups.iter().any(counts);
    let (below, here): (Vec<_>, Vec<_>) =
        backups.into_iter().filter(|backup| !any_counts || counts(backup)).partition(PrefixedBackup::is_below);
    let plain = here.iter().position(|backup| backup.groups.iter().any(|group| group.prefix.is_empty()));
    let chosen = match (plain, here.as_slice()) {
        (Some(position), _) => here.get(position),
        (None, [only]) => Some(only),
        (None, []) => {
            let requested = "in this directory".to_owned();
            return Err(CollectionError::NoSuchPrefix { requested, found: describe_backups(&below) });
        }
        (None, several) => return Err(CollectionError::SeveralPrefixes { found: describe_backups(several) }),
    };
    let prefixes = chosen.map(PrefixedBackup::prefixes).unwrap_or_default();
    let (objects, rest): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|named| named.name.prefix == prefixes.of(named.name.role.kind()));
    let others = find_backups(&rest).iter().map(PrefixedBackup::as_other).collect();
    Ok(ChosenBackup { objects, prefixes, others, foreign })
}

/// The names with one prefix.
#[derive(Debug, Default)]
struct PrefixGroup<'a> {
    prefix: &'a str,
    sets_by_kind: BTreeMap<NameKind, BTreeSet<SetTimes>>,
    objects: usize,
    has_encrypted_manifest: bool,
}

/// The prefix groups that make up one backup: one, or several with different kinds of files of the same sets.
#[derive(Debug, Default)]
struct PrefixedBackup<'a> {
    groups: Vec<PrefixGroup<'a>>,
}

impl PrefixedBackup<'_> {
    fn has(&self, kind: NameKind) -> bool {
        self.groups.iter().any(|group| group.sets_by_kind.contains_key(&kind))
    }

    fn has_manifest(&self) -> bool {
        self.has(NameKind::Manifest)
    }

    fn has_encrypted_manifest(&self) -> bool {
        self.groups.iter().any(|group| group.has_encrypted_manifest)
    }

    /// Returns true if its names are in a directory below the one that was listed.
    fn is_below(&self) -> bool {
        self.groups.iter().any(|group| group.prefix.contains('/'))
    }

    fn prefixes(&self) -> NamePrefixes {
        let shortest = self.groups.iter().map(|group| group.prefix).min_by_key(|prefix| prefix.len());
        let of = |kind: NameKind| {
            let group = self.groups.iter().find(|group| group.sets_by_kind.contains_key(&kind));
            let prefix = group.map(|group| group.prefix).or(shortest.filter(|_| self.groups.len() == 1));
            prefix.unwrap_or_default().to_owned()
        };
        NamePrefixes {
            archive: of(NameKind::Volume),
            manifest: of(NameKind::Manifest),
            signature: of(NameKind::Signature),
        }
    }

    fn as_other(&self) -> OtherBackup {
        let objects = self.groups.iter().map(|group| group.objects).sum();
        let encrypted = self.has_encrypted_manifest();
        OtherBackup { options: backup_options(&self.prefixes()), objects, encrypted }
    }

    /// Returns the options that choose the backup, for a message.
    fn describe(&self) -> String {
        match self.groups.as_slice() {
            [group] if group.prefix.ends_with('/') => {
                format!("the URL with '{}' appended", escape_bytes(group.prefix.trim_end_matches('/').as_bytes()))
            }
            _ => backup_options(&self.prefixes()).unwrap_or_else(|| "no prefix".to_owned()),
        }
    }
}

fn describe_backups(backups: &[PrefixedBackup<'_>]) -> Vec<String> {
    let mut found: Vec<String> = backups.iter().take(MAX_NAMED_BACKUPS).map(PrefixedBackup::describe).collect();
    if let Some(more) = backups.len().checked_sub(MAX_NAMED_BACKUPS).filter(|more| *more > 0) {
        found.push(format!("{more} more"));
    }
    found
}

/// Returns the options that choose `prefixes`, quoted for a shell. Returns `None` for empty prefixes.
fn backup_options(prefixes: &NamePrefixes) -> Option<String> {
    let quoted = |prefix: &str| {
        let needs_no_quotes = |b: u8| b.is_ascii_alphanumeric() || b"_-.,/:=@%+".contains(&b);
        if prefix.bytes().all(needs_no_quotes) {
            prefix.to_owned()
        } else {
            format!("'{}'", prefix.replace('\'', "'\\''"))
        }
    };
    if NameKind::ALL.iter().all(|kind| prefixes.of(*kind) == prefixes.archive) {
        return (!prefixes.archive.is_empty()).then(|| format!("--file-prefix {}", quoted(&prefixes.archive)));
    }
    let options = NameKind::ALL
        .iter()
        .map(|kind| (option_of(*kind), prefixes.of(*kind)))
        .filter(|(_, prefix)| !prefix.is_empty());
    Some(options.map(|(option, prefix)| format!("{option} {}", quoted(prefix))).collect::<Vec<_>>().join(" "))
}

/// Groups names by prefix, and joins the groups that belong to one backup.
fn find_backups<'a>(objects: &[NamedObject<'a>]) -> Vec<PrefixedBackup<'a>> {
    let mut groups: BTreeMap<&'a str, PrefixGroup<'a>> = BTreeMap::new();
    for NamedObject { name, .. } in objects {
        let group = groups.entry(name.prefix).or_default();
        group.prefix = name.prefix;
        group.objects += 1;
        group.has_encrypted_manifest |= name.role == FileRole::Manifest && name.suffix.is_encrypted();
        group.sets_by_kind.entry(name.role.kind()).or_default().insert(name.set);
    }
    let mut backups: Vec<PrefixedBackup<'a>> =
        groups.into_values().map(|group| PrefixedBackup { groups: vec![group] }).collect();
    // Groups are joined if they have different kinds of files of the same sets. The pairs that share the most sets come
    // first, and of these the pairs with the most similar prefixes.
    let mut pairs = find_related_pairs(&backups);
    pairs.sort_by(|a, b| {
        let by_relation = (b.shared_sets, b.common_prefix_len).cmp(&(a.shared_sets, a.common_prefix_len));
        by_relation.then((a.first, a.second).cmp(&(b.first, b.second)))
    });
    let mut joined_into: Vec<usize> = (0..backups.len()).collect();
    for pair in pairs {
        let (Some(a), Some(b)) = (joined_into.get(pair.first).copied(), joined_into.get(pair.second).copied()) else {
            continue;
        };
        let (Some(first), Some(second)) = (backups.get(a), backups.get(b)) else { continue };
        if a == b || NameKind::ALL.iter().any(|kind| first.has(*kind) && second.has(*kind)) {
            continue;
        }
        let moved = backups.get_mut(b).map(std::mem::take).unwrap_or_default();
        if let Some(first) = backups.get_mut(a) {
            first.groups.extend(moved.groups);
        }
        for position in joined_into.iter_mut().filter(|position| **position == b) {
            *position = a;
        }
    }
    backups.retain(|backup| !backup.groups.is_empty());
    backups
}

/// Two prefix groups that have files of the same sets.
struct RelatedPair {
    first: usize,
    second: usize,
    shared_sets: usize,
    common_prefix_len: usize,
}

/// Finds the pairs of incomplete backups with files of the same sets.
fn find_related_pairs(backups: &[PrefixedBackup<'_>]) -> Vec<RelatedPair> {
    // Times that more prefixes share (hosts that all run at midnight) do not show which ones belong together. Counting
    // all their pairs would take quadratic time.
    const MAX_SHARING: usize = 16;
    let is_incomplete = |backup: &PrefixedBackup<'_>| !NameKind::ALL.iter().all(|kind| backup.has(*kind));
    let mut by_set: BTreeMap<SetTimes, Vec<usize>> = BTreeMap::new();
    for (position, backup) in backups.iter().enumerate().filter(|(_, backup)| is_incomplete(backup)) {
        let sets: BTreeSet<SetTimes> =
            backup.groups.iter().flat_map(|group| group.sets_by_kind.values().flatten()).copied().collect();
        for set in sets {
            by_set.entry(set).or_default().push(position);
        }
    }
    let mut shared: HashMap<(usize, usize), usize> = HashMap::new();
    for positions in by_set.values().filter(|positions| positions.len() <= MAX_SHARING) {
        for (i, &first) in positions.iter().enumerate() {
            for &second in positions.iter().skip(i + 1) {
                *shared.entry((first, second)).or_default() += 1;
            }
        }
    }
    let prefix = |position: usize| {
        backups.get(position).and_then(|backup| backup.groups.first()).map_or("", |group| group.prefix)
    };
    let common_prefix_len =
        |a: usize, b: usize| prefix(a).bytes().zip(prefix(b).bytes()).take_while(|(a, b)| a == b).count();
    shared
        .into_iter()
        .map(|((first, second), shared_sets)| RelatedPair {
            first,
            second,
            shared_sets,
            common_prefix_len: common_prefix_len(first, second),
        })
        .collect()
}
