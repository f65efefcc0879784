//! Opens backups for the commands: from arguments to a store, keys and a file system.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};

use crate::vfs::{FileSystem, OwnerOptions, ShownSizes, TreeFs};
use dupfs_base::{ErrorKind, HasKind, escape_bytes, hex, io_reason};
use dupfs_cache::SpillConfig;
use dupfs_format::collection::{Collection, PrefixOptions};
use dupfs_format::{ArchivePath, BackupTime};
use dupfs_read::codec::{DecodeOptions, KeyOptions, Signer};
use dupfs_read::storage::{
    self, LimitedStore, Location, ObjectInfo, ObjectStore, RateLimitedStore, S3Addressing, S3Credentials, SecretSource,
    StoreOptions, UrlOptions, parse_url_with,
};

use super::args::{CatArgs, DiffArgs, FindArgs, HistoryArgs, LsArgs, RestoreArgs, SetsArgs, VerifyArgs};
use super::backend::{Backend, BackupLocation, OpenRequest, StoreBounds};
use super::build_index::{IndexArgs, IndexOptions};
use super::cache_dir::cache_dir;
use super::compare::{self, CompareOptions, ContentRule};
use super::diff::{self, DiffOptions};
use super::environment_secrets;
use super::error::CliError;
use super::exit::CommandExit;
use super::fetch_progress::FetchProgress;
use super::find::{self, FindOptions};
use super::gpg_args::gpg_for_session_keys;
use super::history::{self, HistoryOptions};
use super::ls::LsOptions;
use super::open::{
    DEFAULT_MEMORY, RepositoryOptions, ViewOptions, open_file_system, open_mount, open_repository, open_snapshot,
};
use super::options::{CacheArgs, KeyArgs, OwnerArgs, RepoArgs, SnapshotArgs, TimeArgs, VerifiedUnit};
use super::printer::{Printer, print, print_with};
use super::request_timeout::RequestTimeout;
use super::restore::{self, RestoreOptions};
use super::secrets::Passphrases;
use super::sets::SetsOptions;
use super::verify::{SampleOptions, VerifyOptions};
use super::volumes::{ThawOptions, VolumesArgs, VolumesOptions, VolumesSource};
use super::{build_index, cat, configuration, ls, nearby, sets, time_argument, typed_path, verify, volumes};

/// Default of `--cache-size`: bytes of sealed blocks on disk.
const DEFAULT_CACHE_SIZE: u64 = 2 << 30;
/// Upper bound of the volumes that are fetched at the same time.
const MAX_CONCURRENT_VOLUMES: u64 = 4;
/// Default of `--days`: the time for which copies from cold storage stay.
const DEFAULT_THAW_DAYS: u32 = 7;

/// Opens real backups.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backups;

impl Backend for Backups {
    fn locate(&self, repo: &RepoArgs, cache: &CacheArgs) -> Result<BackupLocation, CliError> {
        let location = location(repo)?;
        let mut local = Vec::new();
        if let Location::Local(dir) = &location {
            let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
            local.push(("the backup", absolute));
        }
        if let Some(dir) = spill(cache).map(|spill| spill.dir).or_else(|| index(cache)) {
            local.push(("the cache", dir));
        }
        let url = match &location {
            Location::Local(dir) => {
                let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
                Location::Local(absolute).display_without_secrets()
            }
            Location::S3(_) | Location::Remote(_) | Location::Multi(_) => location.display_without_secrets(),
        };
        Ok(BackupLocation { url, local })
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Arc<dyn FileSystem>, CliError> {
        let store = store_with(request.repo, request.start, &request.bounds, |_| {})?;
        let options = RepositoryOptions {
            index: index(request.cache),
            start_timeout: Some(request.start.0),
            ..repository_options(request.repo, request.keys, request.cache, &request.passphrases)?
        };
        let view = ViewOptions {
            time: snapshot_time(request.time, &*store, request.repo, request.start)?,
            path: request.path.map(path).transpose()?,
            owners: owners(request.owners),
            sizes: request.sizes,
            zip_names: request.zip_names,
        };
        open_mount(store, options, view, request.timeout)
    }

    fn sets(&self, args: &SetsArgs) -> Result<(), CliError> {
        let passphrases = Arc::new(Passphrases::gather(&args.keys)?);
        let timeout = RequestTimeout::from(&args.deadline);
        let store = store(&args.repo, timeout)?;
        let options = repository_options(&args.repo, &args.keys, &args.cache, &passphrases)?;
        let repository = open_repository(store, options, timeout)?;
        let shown = SetsOptions { json: args.json, check: args.check };
        let _progress = FetchProgress::of_repository(&repository);
        print(|printer| sets::run(&repository, timeout, shown, printer))
    }

    fn ls(&self, args: &LsArgs) -> Result<(), CliError> {
        let timeout = RequestTimeout::from(&args.snapshot.deadline);
        let fs = self.view(&args.repo, &args.snapshot, args.path.as_slice(), &args.owners, ShownSizes::Exact)?;
        let options = LsOptions {
            long: args.long,
            recursive: args.recursive,
            print0: args.print0,
            json: args.json,
            numeric: args.owners.numeric_owner,
        };
        let listed = print_from(&fs, |printer| ls::run(&*fs, args.path.as_deref(), &options, timeout, printer));
        fs.finish();
        listed
    }

    fn find(&self, args: &FindArgs) -> Result<(), CliError> {
        let timeout = RequestTimeout::from(&args.snapshot.deadline);
        let options = FindOptions {
            pattern: args.pattern.clone(),
            regex: args.regex,
            ignore_case: args.ignore_case,
            kinds: args.types.iter().map(|of| of.kind()).collect(),
            newer: args.newer.as_deref().map(|text| time_argument::parse("--newer", text)).transpose()?,
            larger: args.larger.map(|size| size.0),
            print0: args.print0,
            json: args.json,
        };
        find::check(&options)?;
        if args.all {
            let SnapshotArgs { keys, cache, .. } = &args.snapshot;
            let fs = all_trees(&args.repo, keys, cache, OwnerOptions::default(), timeout)?;
            let found = print_from(&fs, |printer| find::run_all(&fs, &options, timeout, printer));
            fs.finish();
            return found;
        }
        let fs = self.view(&args.repo, &args.snapshot, &[], &OwnerArgs::default(), ShownSizes::Exact)?;
        let found = print_from(&fs, |printer| find::run(&*fs, &options, timeout, printer));
        fs.finish();
        found
    }

    fn history(&self, args: &HistoryArgs) -> Result<(), CliError> {
        let HistoryArgs { repo, deadline, owners: of, keys, cache, .. } = args;
        let timeout = RequestTimeout::from(deadline);
        let fs = all_trees(repo, keys, cache, owners(of), timeout)?;
        let options = HistoryOptions { all: args.all, json: args.json, numeric: of.numeric_owner };
        let printed = print_from(&fs, |printer| history::run(&fs, &args.path, options, timeout, printer));
        fs.finish();
        printed
    }

    fn diff(&self, args: &DiffArgs) -> Result<(), CliError> {
        let DiffArgs { repo, deadline, keys, cache, .. } = args;
        let timeout = RequestTimeout::from(deadline);
        // Owners are compared as they were archived.
        let owners = OwnerOptions { numeric: true, ..OwnerOptions::default() };
        let fs = all_trees(repo, keys, cache, owners, timeout)?;
        let options = DiffOptions {
            operands: args.operands().cloned().collect(),
            json: args.json,
            print0: args.print0,
            exit_code: args.exit_code,
            patch: args.patch,
            new_file: args.new_file,
        };
        let printed = print_from(&fs, |printer| diff::run(&fs, &options, timeout, printer));
        fs.finish();
        printed
    }

    fn cat(&self, args: &CatArgs) -> Result<(), CliError> {
        let timeout = RequestTimeout::from(&args.snapshot.deadline);
        let fs = self.view(&args.repo, &args.snapshot, &args.paths, &OwnerArgs::default(), ShownSizes::Exact)?;
        let written = print_from(&fs, |printer| cat::run(&*fs, &args.paths, timeout, printer));
        fs.finish();
        written
    }

    fn restore(&self, args: &RestoreArgs) -> Result<(), CliError> {
        let timeout = RequestTimeout::from(&args.snapshot.deadline);
        let (paths, dest) = args.split();
        let url = self.locate(&args.repo, &args.snapshot.cache)?.url;
        let fs = self.view(&args.repo, &args.snapshot, &paths, &args.owners, ShownSizes::Exact)?;
        let options = RestoreOptions {
            paths,
            dest,
            force: args.force,
            no_owner: args.no_owner,
            ignore_space: args.ignore_space,
            dry_run: args.dry_run,
            json: args.json,
        };
        let restored = print_from(&fs, |printer| restore::run(&*fs, &url, &options, timeout, printer));
        fs.finish();
        restored
    }

    fn verify(&self, args: &VerifyArgs) -> Result<(), CliError> {
        if let Some(directory) = args.compared().map_err(CliError::Usage)? {
            return self.compare(args, directory);
        }
        let SnapshotArgs { deadline, time: at, keys, cache } = &args.snapshot;
        let timeout = RequestTimeout::from(deadline);
        let passphrases = Arc::new(Passphrases::gather(keys)?);
        if args.repo.archive_dir.is_some() {
            log::warn!("--archive-dir: verify reads everything from the backup itself");
        }
        let store = store(&args.repo, timeout)?;
        let options = VerifyOptions {
            time: snapshot_time(at, &*store, &args.repo, timeout)?,
            deep: args.deep,
            sample: args.sample.map(|percent| SampleOptions::new(percent, args.seed)),
            resume: args.resume,
            json: args.json,
        };
        // Neither an index of mounts nor a copy may answer for an object of the backup. Only `--deep` reads volumes twice: in the
        // spill file are their blocks that do not fit into memory until their files are read.
        let of_run = |index: Option<PathBuf>| {
            let opened = repository_options(&args.repo, keys, cache, &passphrases)?;
            let verification = index.is_some().then(|| options.record_name(at.time.as_deref()));
            let (reports_volumes, lists_files) = (true, true);
            let spill = opened.spill.clone().filter(|_| args.deep);
            let opened = RepositoryOptions {
                index,
                verification,
                archive_dir: None,
                spill,
                reports_volumes,
                lists_files,
                ..opened
            };
            open_file_system(Arc::clone(&store), opened, ViewOptions::default(), timeout)
        };
        let Some(dir) = args.resume.then(|| required_index(cache)).transpose()? else {
            let fs = of_run(None)?;
            return print(|printer| Ok(verify::run(&fs, fs.repository(), options, timeout, printer)?.exit));
        };
        let mut fs = of_run(Some(dir.clone()))?;
        if let Some(name) = verify::outdated_index(fs.repository(), BackupTime::now()) {
            drop(fs);
            verify::remove_record(&dir, &name);
            fs = of_run(Some(dir.clone()))?;
        }
        let name = fs.repository().index().on_disk().map(|index| index.name());
        let mut is_complete = false;
        let result = print(|printer| {
            let ended = verify::run(&fs, fs.repository(), options, timeout, printer)?;
            is_complete = ended.is_complete;
            Ok(ended.exit)
        });
        drop(fs);
        if let Some(name) = name.filter(|_| is_complete) {
            verify::remove_record(&dir, &name);
        }
        result
    }

    fn index(&self, args: &IndexArgs) -> Result<(), CliError> {
        let dir = required_index(&args.cache)?;
        let passphrases = Arc::new(Passphrases::gather(&args.keys)?);
        let mut timeout = RequestTimeout::from(&args.deadline);
        let store = match args.rate {
            Some(rate) => {
                // What is fetched in advance of a reader is not limited.
                let store = store_with(&args.repo, timeout, &StoreBounds::of_command(&args.repo), |options| {
                    options.read_ahead_bytes = 0
                })?;
                timeout.0 = timeout.0.saturating_add(time_at_rate(&*store, rate, timeout)?);
                Arc::new(RateLimitedStore::new(store, rate))
            }
            None => store(&args.repo, timeout)?,
        };
        let options = repository_options(&args.repo, &args.keys, &args.cache, &passphrases)?;
        let options = RepositoryOptions { index: Some(dir), ..options };
        let tree = open_file_system(store, options, ViewOptions::default(), timeout)?;
        let options = IndexOptions { no_sizes: args.no_sizes, json: args.json };
        print(|printer| build_index::run(&tree, options, timeout, printer))
    }

    fn volumes(&self, args: &VolumesArgs) -> Result<(), CliError> {
        let SnapshotArgs { deadline, time: at, keys, cache } = &args.snapshot;
        volumes::check(&args.paths)?;
        let timeout = RequestTimeout::from(deadline);
        let passphrases = Arc::new(Passphrases::gather(keys)?);
        let store = store(&args.repo, timeout)?;
        let options = repository_options(&args.repo, keys, cache, &passphrases)?;
        let options = RepositoryOptions { index: index(cache), spill: None, ..options };
        let shows_snapshots = at.time.is_none() && args.paths.iter().any(|path| typed_path::is_of_mount(path));
        let source = if shows_snapshots {
            let tree = open_file_system(store, options, ViewOptions::default(), timeout)?;
            VolumesSource { repository: Arc::clone(tree.repository()), snapshot: None, tree: Ok(tree) }
        } else {
            let time = snapshot_time(at, &*store, &args.repo, timeout)?;
            let (repository, snapshot, tree) = open_snapshot(store, options, time, timeout)?;
            VolumesSource { repository, snapshot: Some(snapshot), tree }
        };
        let thaw = args.thaw.then(|| ThawOptions {
            days: args.days.unwrap_or(DEFAULT_THAW_DAYS),
            tier: args.tier.unwrap_or_default(),
            requester_pays: args.repo.s3_requester_pays,
        });
        let options = VolumesOptions { paths: args.paths.clone(), thaw, json: args.json };
        let _progress = FetchProgress::of_repository(&source.repository);
        let printed = print(|printer| volumes::run(&source, &options, timeout, printer));
        if let Ok(tree) = &source.tree {
            tree.finish();
        }
        printed
    }
}

impl Backups {
    /// `dupfs verify` with a directory.
    fn compare(&self, args: &VerifyArgs, directory: &Path) -> Result<(), CliError> {
        if args.directory.is_some() && !args.compare_data {
            log::warn!(
                "with a directory, verify compares the snapshot with it, as --compare does; dupfs verify URL alone reads \
                 every object of the backup"
            );
        }
        let timeout = RequestTimeout::from(&args.snapshot.deadline);
        let url = self.locate(&args.repo, &args.snapshot.cache)?.url;
        let owners = OwnerArgs { numeric_owner: args.numeric_owner, ..OwnerArgs::default() };
        let fs = self.view(&args.repo, &args.snapshot, args.path.as_slice(), &owners, ShownSizes::Exact)?;
        let contents = match (args.compare_data, args.deep) {
            (false, _) => ContentRule::None,
            (true, false) => ContentRule::Signed,
            (true, true) => ContentRule::Stored,
        };
        let (path, directory) = (args.path.clone(), directory.to_owned());
        let options = CompareOptions { path, directory, contents, no_owner: args.no_owner, json: args.json };
        let compared = print_from(&fs, |printer| compare::run(&*fs, &url, &options, timeout, printer));
        fs.finish();
        compared
    }

    /// The file system with one snapshot's tree at its root: that of the time, or the newest. Without a time, and if one of the
    /// paths is as the mount has it, the file system with all snapshots.
    fn view(
        &self,
        repo: &RepoArgs,
        SnapshotArgs { deadline, time, keys, cache }: &SnapshotArgs,
        paths: &[OsString],
        owners: &OwnerArgs,
        sizes: ShownSizes,
    ) -> Result<Arc<dyn FileSystem>, CliError> {
        let timeout = RequestTimeout::from(deadline);
        let passphrases = Arc::new(Passphrases::gather(keys)?);
        let shows_snapshots = time.time.is_none() && paths.iter().any(|path| typed_path::is_of_mount(path));
        let path = (!shows_snapshots).then_some(OsStr::new(""));
        let zip_names = None;
        let (start, bounds) = (timeout, StoreBounds::of_command(repo));
        self.open(OpenRequest {
            repo,
            keys,
            cache,
            time,
            owners,
            path,
            sizes,
            zip_names,
            passphrases,
            start,
            timeout,
            bounds,
        })
    }
}

/// Runs a command that prints what `fs` shows, and shows the progress of its work.
fn print_from<F: FileSystem + ?Sized + 'static>(
    fs: &Arc<F>,
    command: impl FnOnce(&mut Printer<'_>) -> Result<CommandExit, CliError>,
) -> Result<(), CliError> {
    let progress = FetchProgress::of_file_system(fs);
    print_with(Some(progress.activity()), command)
}

/// The file system with all snapshots and nothing unpacked.
fn all_trees(
    repo: &RepoArgs,
    keys: &KeyArgs,
    cache: &CacheArgs,
    owners: OwnerOptions,
    timeout: RequestTimeout,
) -> Result<Arc<TreeFs>, CliError> {
    let passphrases = Arc::new(Passphrases::gather(keys)?);
    let store = store(repo, timeout)?;
    let options = repository_options(repo, keys, cache, &passphrases)?;
    let options = RepositoryOptions { index: index(cache), ..options };
    open_file_system(store, options, ViewOptions { owners, ..ViewOptions::default() }, timeout)
}

/// The options by which a repository is opened, without an index.
fn repository_options(
    repo: &RepoArgs,
    keys: &KeyArgs,
    cache: &CacheArgs,
    passphrases: &Arc<Passphrases>,
) -> Result<RepositoryOptions, CliError> {
    Ok(RepositoryOptions {
        prefixes: prefixes(repo),
        keys: key_options(keys, passphrases)?,
        decode: decode(keys)?,
        memory: memory(cache),
        spill: spill(cache),
        archive_dir: archive_dir(repo),
        local: local(repo)?,
        rebuild: repo.rebuild,
        prove_after: RepositoryOptions::default().prove_after.filter(|_| keys.verify == VerifiedUnit::Block),
        ..RepositoryOptions::default()
    })
}

fn location(repo: &RepoArgs) -> Result<Location, CliError> {
    let options = UrlOptions { style: repo.s3_url_style, endpoint_url: repo.s3_endpoint_url.clone() };
    match repo.url.to_str() {
        Some(text) => parse_url_with(text, &options).map_err(|error| match error.kind() {
            // The same URL is refused again, which a service must not try.
            ErrorKind::Unsupported => CliError::Usage(error.to_string()),
            _ => error.into(),
        }),
        // No URL has such bytes, a path may.
        None => Ok(Location::Local(PathBuf::from(&repo.url))),
    }
}

fn store(repo: &RepoArgs, deadline: RequestTimeout) -> Result<Arc<dyn ObjectStore>, CliError> {
    store_with(repo, deadline, &StoreBounds::of_command(repo), |_| {})
}

/// The time that a step may take longer at a limited rate: that of the largest object, which others are fetched beside, and of
/// all small ones, the manifests and signature archives.
fn time_at_rate(store: &dyn ObjectStore, rate: NonZeroU64, timeout: RequestTimeout) -> Result<Duration, CliError> {
    let objects = store.list(&timeout.start())?;
    let is_volume = |object: &&ObjectInfo| object.name.contains(".difftar") || object.name.contains(".vol");
    let largest = objects.iter().map(|object| object.size).max().unwrap_or(0);
    let others = objects.iter().filter(|object| !is_volume(object)).map(|object| object.size);
    let bytes = others.fold(largest.saturating_mul(MAX_CONCURRENT_VOLUMES), u64::saturating_add);
    Ok(Duration::from_secs(bytes / rate))
}

/// Opens the store. No request to it, not even the first, waits for longer than `deadline`.
fn store_with(
    repo: &RepoArgs,
    deadline: RequestTimeout,
    bounds: &StoreBounds,
    change: impl FnOnce(&mut StoreOptions),
) -> Result<Arc<dyn ObjectStore>, CliError> {
    let prefixes = prefixes(repo);
    let common = prefixes.file_prefix.as_deref().unwrap_or("");
    let kinds = [&prefixes.archive, &prefixes.manifest, &prefixes.signature];
    let mut options = StoreOptions {
        file_prefixes: kinds.map(|kind| format!("{common}{}", kind.as_deref().unwrap_or(""))).to_vec(),
        s3_endpoint_url: repo.s3_endpoint_url.clone(),
        s3_region: repo.s3_region_name.clone(),
        s3_unencrypted: repo.s3_unencrypted_connection,
        s3_credentials: repo.s3_profile.clone().map_or_else(s3_credentials, S3Credentials::Profile),
        rclone: repo.rclone.clone(),
        ca_file: ca_file(repo)?,
        ssh_options: split_words(repo.ssh_options.as_deref().unwrap_or_default()),
        secrets: SecretSource::new(environment_secrets::get),
        s3_addressing: if repo.s3_use_new_style { S3Addressing::VirtualHost } else { S3Addressing::Auto },
        timeout: repo.request_timeout().min(deadline.0),
        read_timeout: bounds.read_timeout.clone(),
        s3_requester_pays: repo.s3_requester_pays,
        ..StoreOptions::default()
    };
    change(&mut options);
    let location = location(repo)?;
    let store = storage::open(&location, &options).map_err(|error| {
        let remark = match (&location, repo.url.to_str()) {
            (Location::Local(dir), Some(typed)) if error.kind() == ErrorKind::NotFound => {
                let remark = nearby::remark_on_missing(typed, dir).or_else(|| configuration::remark_on_missing(typed));
                remark.or_else(|| Some("give the URL or path of the backup".to_owned()))
            }
            _ => None,
        };
        match remark {
            Some(remark) => CliError::failed(error.kind(), format!("{error}; {remark}")),
            None => error.into(),
        }
    })?;
    Ok(match &bounds.fetch_limit {
        Some(limit) => Arc::new(LimitedStore::new(store, Arc::clone(limit))),
        None => store,
    })
}

/// The time of `--time`. An error names the most similar snapshot of `store`.
fn snapshot_time(
    args: &TimeArgs,
    store: &dyn ObjectStore,
    repo: &RepoArgs,
    timeout: RequestTimeout,
) -> Result<Option<BackupTime>, CliError> {
    let names = || {
        // Where it cannot be listed, the error is without a name.
        let objects = store.list(&timeout.start()).unwrap_or_default();
        let collection = Collection::from_listing(&objects, &prefixes(repo)).ok();
        let names = |collection: Collection| collection.snapshots().iter().map(|of| of.name.to_string()).collect();
        collection.map(names).unwrap_or_default()
    };
    args.time.as_deref().map(|text| time_argument::parse_among("--time", text, names)).transpose()
}

/// The directory of the backup, if it is one of this machine.
fn local(repo: &RepoArgs) -> Result<Option<PathBuf>, CliError> {
    match location(repo)? {
        Location::Local(dir) => Ok(Some(dir)),
        Location::S3(_) | Location::Remote(_) | Location::Multi(_) => Ok(None),
    }
}

/// The absolute path of `--ssl-cacert-file`: a daemon changes its working directory. rclone ignores a file that it cannot read.
fn ca_file(repo: &RepoArgs) -> Result<Option<PathBuf>, CliError> {
    let Some(file) = &repo.ssl_cacert_file else { return Ok(None) };
    let readable = std::fs::File::open(file).and_then(|_| std::path::absolute(file));
    readable.map(Some).map_err(|error| {
        let line = format!("{}: the CA certificates cannot be read: {}", file.display(), io_reason(&error));
        CliError::Usage(line)
    })
}

/// The access key of the environment, which AWS's chain tries first; without one, the chain.
fn s3_credentials() -> S3Credentials {
    let secret = |name: &str| {
        let value = environment_secrets::get(name)?;
        let text = std::str::from_utf8(value.expose()).ok()?;
        (!text.trim().is_empty()).then_some(value)
    };
    let id = std::env::var("AWS_ACCESS_KEY_ID").ok().filter(|id| !id.trim().is_empty());
    let key = secret("AWS_SECRET_ACCESS_KEY").or_else(|| secret("SECRET_ACCESS_KEY"));
    match id.zip(key) {
        Some((id, key)) => S3Credentials::Static { id, secret: key, token: secret("AWS_SESSION_TOKEN") },
        None => S3Credentials::Chain,
    }
}

/// The words of a text in which quotes keep spaces, as a shell reads them.
fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn prefixes(repo: &RepoArgs) -> PrefixOptions {
    PrefixOptions {
        file_prefix: repo.file_prefix.clone(),
        archive: repo.file_prefix_archive.clone(),
        manifest: repo.file_prefix_manifest.clone(),
        signature: repo.file_prefix_signature.clone(),
    }
}

/// duplicity's archive directory of this backup: below `--archive-dir`, named by `--name` or the hash of the URL as typed.
fn archive_dir(repo: &RepoArgs) -> Option<PathBuf> {
    let hashed = || hex(&Md5::digest(repo.url.as_bytes()));
    let name = repo.name.clone().unwrap_or_else(|| hashed().into());
    let Some(given) = &repo.archive_dir else {
        if repo.name.is_some() {
            // duplicity's name of its cache.
            log::warn!("without effect on reading, ignored: --name (it belongs to --archive-dir)");
        }
        return None;
    };
    let dir = given.join(name);
    if let Some(remedy) = misplaced_archive_dir(given, &dir) {
        let given = escape_bytes(given.as_os_str().as_bytes());
        log::warn!("--archive-dir {given}: {remedy}; everything is read from the backup itself");
        return None;
    }
    Some(std::path::absolute(&dir).unwrap_or(dir))
}

/// The right options, if the archive directory of the backup is not at `dir` below `given`.
fn misplaced_archive_dir(given: &Path, dir: &Path) -> Option<String> {
    if dir.exists() {
        return None;
    }
    let given = std::path::absolute(given).ok()?;
    let shown = |path: &OsStr| escape_bytes(path.as_bytes());
    if let (Some(parent), Some(name), true) = (given.parent(), given.file_name(), nearby::has_backup_files(&given)) {
        let (parent, name) = (shown(parent.as_os_str()), shown(name));
        return Some(format!("that directory contains manifests itself; give --archive-dir {parent} --name {name}"));
    }
    let below = nearby::directories_with_backup_files(&given);
    (!below.is_empty()).then(|| {
        let requested = dir.file_name().map(shown).unwrap_or_default();
        format!("it has no {requested}; choose with --name one of: {}", below.join(", "))
    })
}

fn key_options(args: &KeyArgs, passphrases: &Arc<Passphrases>) -> Result<KeyOptions, CliError> {
    let prompts = Arc::clone(passphrases);
    Ok(KeyOptions {
        secret_keys: args.secret_key.clone(),
        passphrases: passphrases.given().to_vec(),
        ask: Some(Box::new(move |prompt| prompts.ask(prompt))),
        gpg: gpg_for_session_keys(args)?,
    })
}

fn decode(args: &KeyArgs) -> Result<DecodeOptions, CliError> {
    let require_signer = match (&args.sign_key, &args.verify_key) {
        (Some(id), Some(file)) => Some(Signer::load(id, file)?),
        // The arguments require each other.
        _ => None,
    };
    Ok(DecodeOptions {
        allow_unauthenticated: args.allow_unauthenticated,
        require_signer,
        ignore_volume_hash: args.ignore_volume_hash,
        require_encryption: args.require_encryption,
    })
}

fn owners(args: &OwnerArgs) -> OwnerOptions {
    OwnerOptions { numeric: args.numeric_owner, uid: args.uid, gid: args.gid, umask: args.umask.unwrap_or(0) }
}

fn path(typed: &OsStr) -> Result<ArchivePath, CliError> {
    let bytes = typed.as_bytes();
    ArchivePath::parse(bytes).map_err(|error| CliError::Usage(format!("--path {}: {error}", escape_bytes(bytes))))
}

fn memory(cache: &CacheArgs) -> u64 {
    cache.memory.map_or(DEFAULT_MEMORY, |bytes| bytes.0)
}

/// The spill file; none with `--cache-size 0` or without a home directory.
fn spill(cache: &CacheArgs) -> Option<SpillConfig> {
    let bytes = cache.cache_size.map_or(DEFAULT_CACHE_SIZE, |size| size.0);
    Some(SpillConfig { dir: cache_dir(cache.cache_dir.as_deref()).filter(|_| bytes > 0)?, bytes })
}

/// The directory of the indexes; none with `--no-index` or without a home directory.
fn index(cache: &CacheArgs) -> Option<PathBuf> {
    cache_dir(cache.cache_dir.as_deref()).filter(|_| !cache.no_index)
}

/// The directory of indexes of a command that does nothing without one.
fn required_index(cache: &CacheArgs) -> Result<PathBuf, CliError> {
    if cache.no_index {
        return Err(CliError::Usage("--no-index: there is nothing to do without an index".to_owned()));
    }
    index(cache).ok_or_else(|| {
        CliError::Usage("this user has no home directory: give the directory of the index by --cache-dir".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_the_spaces_of_a_word() {
        let of = |text: &str| split_words(text);
        assert_eq!(of("-oPort=1  -i '/a b/key'"), ["-oPort=1", "-i", "/a b/key"]);
        assert_eq!(of("-oIdentityFile=\"/a b\" ''"), ["-oIdentityFile=/a b", ""]);
        assert!(of("  ").is_empty());
    }
}
