//! Several backups in one place, told apart by the prefixes of their names (`--file-prefix` and its kin).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::error::CollectionError;
use super::names::{self, SetKey};
use super::set::{Member, Role};
use crate::ObjectInfo;
use dupfs_base::escape_bytes;

/// Prefixes as the user gives them, under duplicity's option names. What is not given is empty, once one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixOptions {
    /// `--file-prefix`: before every name.
    pub file_prefix: Option<String>,
    /// `--file-prefix-archive`: then before the names of volumes.
    pub archive: Option<String>,
    /// `--file-prefix-manifest`: then before the names of manifests.
    pub manifest: Option<String>,
    /// `--file-prefix-signature`: then before the names of signature archives.
    pub signature: Option<String>,
}

/// The whole prefixes of the names of one backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefixes {
    /// Before the names of volumes.
    pub archive: String,
    /// Before the names of manifests.
    pub manifest: String,
    /// Before the names of signature archives.
    pub signature: String,
}

/// Another backup in the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherBackup {
    /// The options that choose it; `None` for the names without a prefix.
    pub options: Option<String>,
    /// Number of its objects.
    pub objects: usize,
}

/// The objects of the backup chosen.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub(super) members: Vec<Member<'a>>,
    pub(super) prefixes: Prefixes,
    pub(super) others: Vec<OtherBackup>,
    pub(super) foreign: usize,
}

/// At most so many backups are named in one message.
const NAMED: usize = 8;

impl PrefixOptions {
    fn given(&self) -> Option<Prefixes> {
        let Self { file_prefix, archive, manifest, signature } = self;
        let any = [file_prefix, archive, manifest, signature].iter().any(|option| option.is_some());
        let whole = |kind: &Option<String>| {
            format!("{}{}", file_prefix.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or_default())
        };
        any.then(|| Prefixes { archive: whole(archive), manifest: whole(manifest), signature: whole(signature) })
    }
}

impl Prefixes {
    fn of(&self, kind: Kind) -> &str {
        match kind {
            Kind::Archive => &self.archive,
            Kind::Manifest => &self.manifest,
            Kind::Signature => &self.signature,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Archive,
    Manifest,
    Signature,
}

const KINDS: [Kind; 3] = [Kind::Archive, Kind::Manifest, Kind::Signature];

impl Kind {
    fn of(role: Role) -> Self {
        match role {
            Role::Volume(_) => Self::Archive,
            Role::Manifest => Self::Manifest,
            Role::Signature => Self::Signature,
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Archive => "--file-prefix-archive",
            Self::Manifest => "--file-prefix-manifest",
            Self::Signature => "--file-prefix-signature",
        }
    }
}

/// Chooses the backup among `objects` that `options` mean.
pub(super) fn choose<'a>(objects: &'a [ObjectInfo], options: &PrefixOptions) -> Result<Chosen<'a>, CollectionError> {
    let parsed: Vec<Member<'a>> =
        objects.iter().filter_map(|object| names::parse(&object.name).map(|name| (name, object))).collect();
    let foreign = objects.len() - parsed.len();
    let backups = find_backups(&parsed);
    if parsed.is_empty() && options.given().is_none() {
        return Err(CollectionError::NoBackup { objects: objects.len() });
    }
    match options.given() {
        Some(prefixes) => choose_given(objects, prefixes, &backups),
        None => choose_only(parsed, foreign, backups),
    }
}

fn choose_given<'a>(
    objects: &'a [ObjectInfo],
    prefixes: Prefixes,
    backups: &[Backup<'a>],
) -> Result<Chosen<'a>, CollectionError> {
    // Parsed anew behind the prefix, as duplicity does it, whatever the prefix looks like.
    let belongs = |object: &'a ObjectInfo| {
        let mut fits = KINDS.iter().filter_map(|&kind| {
            let name = names::parse_with(&object.name, prefixes.of(kind))?;
            (Kind::of(name.role) == kind).then_some((name, object))
        });
        fits.next()
    };
    let members: Vec<Member<'a>> = objects.iter().filter_map(belongs).collect();
    if members.is_empty() {
        if backups.is_empty() {
            return Err(CollectionError::NoBackup { objects: objects.len() });
        }
        let asked = match backup_options(&prefixes) {
            Some(options) => format!("with {options} here"),
            None => "without a prefix here".to_owned(),
        };
        return Err(CollectionError::NoSuchPrefix { asked, found: describe(backups) });
    }
    let foreign = objects.len() - members.len();
    Ok(Chosen { members, prefixes, others: Vec::new(), foreign })
}

fn choose_only<'a>(
    parsed: Vec<Member<'a>>,
    foreign: usize,
    backups: Vec<Backup<'a>>,
) -> Result<Chosen<'a>, CollectionError> {
    let whole = backups.iter().any(Backup::has_manifest);
    let (below, here): (Vec<_>, Vec<_>) =
        backups.into_iter().filter(|backup| !whole || backup.has_manifest()).partition(Backup::is_below);
    let plain = here.iter().position(|backup| backup.parts.iter().any(|part| part.prefix.is_empty()));
    let chosen = match (plain, here.as_slice()) {
        (Some(place), _) => here.get(place),
        (None, [only]) => Some(only),
        (None, []) => {
            let asked = "in this very place".to_owned();
            return Err(CollectionError::NoSuchPrefix { asked, found: describe(&below) });
        }
        (None, several) => return Err(CollectionError::SeveralPrefixes { found: describe(several) }),
    };
    let prefixes = chosen.map(Backup::prefixes).unwrap_or_default();
    let (members, rest): (Vec<_>, Vec<_>) =
        parsed.into_iter().partition(|(name, _)| name.prefix == prefixes.of(Kind::of(name.role)));
    let others = find_backups(&rest).iter().map(Backup::as_other).collect();
    Ok(Chosen { members, prefixes, others, foreign })
}

/// The names that carry one prefix.
#[derive(Debug, Default)]
struct Part<'a> {
    prefix: &'a str,
    keys: BTreeMap<Kind, BTreeSet<SetKey>>,
    objects: usize,
}

/// Parts that make up one backup: one, or several with different kinds of files of the same sets.
#[derive(Debug, Default)]
struct Backup<'a> {
    parts: Vec<Part<'a>>,
}

impl Backup<'_> {
    fn has(&self, kind: Kind) -> bool {
        self.parts.iter().any(|part| part.keys.contains_key(&kind))
    }

    fn has_manifest(&self) -> bool {
        self.has(Kind::Manifest)
    }

    /// Whether its names are in a directory below the place that was listed.
    fn is_below(&self) -> bool {
        self.parts.iter().any(|part| part.prefix.contains('/'))
    }

    fn prefixes(&self) -> Prefixes {
        let common = self.parts.iter().map(|part| part.prefix).min_by_key(|prefix| prefix.len());
        let of = |kind: Kind| {
            let part = self.parts.iter().find(|part| part.keys.contains_key(&kind));
            part.map(|part| part.prefix).or(common.filter(|_| self.parts.len() == 1)).unwrap_or_default().to_owned()
        };
        Prefixes { archive: of(Kind::Archive), manifest: of(Kind::Manifest), signature: of(Kind::Signature) }
    }

    fn as_other(&self) -> OtherBackup {
        let objects = self.parts.iter().map(|part| part.objects).sum();
        OtherBackup { options: backup_options(&self.prefixes()), objects }
    }

    fn describe(&self) -> String {
        match self.parts.as_slice() {
            [part] if part.prefix.ends_with('/') => {
                format!("the URL with '{}' appended", escape_bytes(part.prefix.trim_end_matches('/').as_bytes()))
            }
            _ => backup_options(&self.prefixes()).unwrap_or_else(|| "no prefix".to_owned()),
        }
    }
}

fn describe(backups: &[Backup<'_>]) -> Vec<String> {
    let mut found: Vec<String> = backups.iter().take(NAMED).map(Backup::describe).collect();
    if let Some(more) = backups.len().checked_sub(NAMED).filter(|more| *more > 0) {
        found.push(format!("{more} more"));
    }
    found
}

/// The options that choose `prefixes`, quoted for a shell.
fn backup_options(prefixes: &Prefixes) -> Option<String> {
    let quoted = |prefix: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.,/:=@%+".contains(&b);
        if prefix.bytes().all(plain) { prefix.to_owned() } else { format!("'{}'", prefix.replace('\'', "'\\''")) }
    };
    let one = KINDS.iter().all(|kind| prefixes.of(*kind) == prefixes.archive);
    if one {
        return (!prefixes.archive.is_empty()).then(|| format!("--file-prefix {}", quoted(&prefixes.archive)));
    }
    let options = KINDS.iter().map(|kind| (kind.option(), prefixes.of(*kind))).filter(|(_, prefix)| !prefix.is_empty());
    Some(options.map(|(option, prefix)| format!("{option} {}", quoted(prefix))).collect::<Vec<_>>().join(" "))
}

/// Sorts names by prefix and joins the prefixes that belong together.
fn find_backups<'a>(parsed: &[Member<'a>]) -> Vec<Backup<'a>> {
    let mut parts: BTreeMap<&'a str, Part<'a>> = BTreeMap::new();
    for (name, _) in parsed {
        let part = parts.entry(name.prefix).or_default();
        part.prefix = name.prefix;
        part.objects += 1;
        part.keys.entry(Kind::of(name.role)).or_default().insert(name.key);
    }
    let mut backups: Vec<Backup<'a>> = parts.into_values().map(|part| Backup { parts: vec![part] }).collect();
    // Parts are joined if they hold different kinds of files of the same sets; those first that share the most sets,
    // of equal ones those whose prefixes are most alike.
    let mut joins = shared_sets(&backups);
    joins.sort_by(|a, b| {
        (b.shared, b.alike).cmp(&(a.shared, a.alike)).then((a.first, a.second).cmp(&(b.first, b.second)))
    });
    let mut home: Vec<usize> = (0..backups.len()).collect();
    for join in joins {
        let (Some(a), Some(b)) = (home.get(join.first).copied(), home.get(join.second).copied()) else { continue };
        let (Some(first), Some(second)) = (backups.get(a), backups.get(b)) else { continue };
        if a == b || KINDS.iter().any(|kind| first.has(*kind) && second.has(*kind)) {
            continue;
        }
        let moved = backups.get_mut(b).map(std::mem::take).unwrap_or_default();
        if let Some(first) = backups.get_mut(a) {
            first.parts.extend(moved.parts);
        }
        for place in home.iter_mut().filter(|place| **place == b) {
            *place = a;
        }
    }
    backups.retain(|backup| !backup.parts.is_empty());
    backups
}

struct Join {
    first: usize,
    second: usize,
    shared: usize,
    alike: usize,
}

/// Counts, for pairs of parts without a kind in common, the sets that both have files of.
fn shared_sets(backups: &[Backup<'_>]) -> Vec<Join> {
    // A time that so many prefixes share (hosts that all run at midnight) does not tell which belong together, and
    // counting all pairs would take for ever.
    const TELLING: usize = 16;
    let partial = |backup: &Backup<'_>| !KINDS.iter().all(|kind| backup.has(*kind));
    let mut by_key: BTreeMap<SetKey, Vec<usize>> = BTreeMap::new();
    for (place, backup) in backups.iter().enumerate().filter(|(_, backup)| partial(backup)) {
        let keys: BTreeSet<SetKey> =
            backup.parts.iter().flat_map(|part| part.keys.values().flatten()).copied().collect();
        for key in keys {
            by_key.entry(key).or_default().push(place);
        }
    }
    let mut shared: HashMap<(usize, usize), usize> = HashMap::new();
    for places in by_key.values().filter(|places| places.len() <= TELLING) {
        for (i, &first) in places.iter().enumerate() {
            for &second in places.iter().skip(i + 1) {
                *shared.entry((first, second)).or_default() += 1;
            }
        }
    }
    let prefix =
        |place: usize| backups.get(place).and_then(|backup| backup.parts.first()).map_or("", |part| part.prefix);
    let alike = |(a, b): (usize, usize)| prefix(a).bytes().zip(prefix(b).bytes()).take_while(|(a, b)| a == b).count();
    shared
        .into_iter()
        .map(|(pair, shared)| Join { first: pair.0, second: pair.1, shared, alike: alike(pair) })
        .collect()
}
