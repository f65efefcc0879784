use std::fs;
use std::os::unix::fs::PermissionsExt;

use clap::FromArgMatches;

use super::super::args::Command as ParsedCommand;
use super::*;

/// A command line, with a configuration file of its own.
struct Line {
    dir: tempfile::TempDir,
}

impl Line {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), config).unwrap();
        fs::set_permissions(dir.path().join("config.toml"), fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir }
    }

    fn variables(&self, pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        let config = self.dir.path().join("config.toml").into_os_string();
        let own = [(OsString::from("DUPFS_CONFIG"), config)];
        own.into_iter().chain(pairs.iter().map(|(name, value)| (name.into(), value.into()))).collect()
    }

    fn gather(&self, typed: &[&str], pairs: &[(&str, &str)]) -> Result<LeveledArguments, CliError> {
        let typed: Vec<OsString> = std::iter::once(&"dupfs").chain(typed).map(OsString::from).collect();
        LeveledArguments::gather(&typed, &self.variables(pairs))
    }

    fn parsed(&self, line: &str, pairs: &[(&str, &str)]) -> ParsedCommand {
        let levels = self.gather(&line.split(' ').collect::<Vec<_>>(), pairs).unwrap();
        let matches = levels.parser().try_get_matches_from(&levels.args).unwrap();
        Cli::from_arg_matches(&matches).unwrap().command
    }

    fn failed(&self, line: &str, pairs: &[(&str, &str)]) -> String {
        let levels = self.gather(&line.split(' ').collect::<Vec<_>>(), pairs);
        let text = match levels {
            Err(error) => error.to_string(),
            Ok(levels) => {
                let error = levels.parser().try_get_matches_from(&levels.args).unwrap_err();
                let origins = levels.origins(&error).unwrap_or_default();
                format!("{}; {origins}", report_of(&error))
            }
        };
        text.replace(self.dir.path().to_str().unwrap(), "DIR")
    }
}

const SITE: &str = "[defaults]\nmemory = '8M'\nuid = 1\nrecursive = true\nsecret-key = '/default'\n\
                    [repository.site]\nurl = 's3://b/site'\nmemory = '16M'\nuid = 2\nsecret-key = ['/a', '/b']\n";

#[test]
fn the_command_line_comes_before_the_environment_the_repository_and_the_defaults() {
    let line = Line::new(SITE);
    let of = |words: &str, pairs: &[(&str, &str)]| {
        let ParsedCommand::Ls(args) = line.parsed(words, pairs) else { panic!("{words}") };
        let url = args.repo.url.to_str().unwrap().to_owned();
        (url, args.snapshot.cache.memory.unwrap().0 >> 20, args.owners.uid.unwrap(), args.recursive)
    };
    assert_eq!(of("ls s3://b/other", &[]), ("s3://b/other".to_owned(), 8, 1, true));
    assert_eq!(of("ls site", &[]), ("s3://b/site".to_owned(), 16, 2, true));
    assert_eq!(of("ls site", &[("DUPFS_MEMORY", "24M"), ("DUPFS_UID", "")]), ("s3://b/site".to_owned(), 24, 2, true));
    let environment = [("DUPFS_MEMORY", "24M"), ("DUPFS_RECURSIVE", "off")];
    assert_eq!(of("ls --memory 4M site", &environment), ("s3://b/site".to_owned(), 4, 2, false));
    assert_eq!(of("ls --recursive=false site -- path", &[]), ("s3://b/site".to_owned(), 16, 2, false));
    assert_eq!(of("ls -R site", &environment), ("s3://b/site".to_owned(), 24, 2, true));
}

#[test]
fn a_repeatable_option_is_replaced_as_a_whole() {
    let line = Line::new(SITE);
    let keys = |words: &str, pairs: &[(&str, &str)]| {
        let ParsedCommand::Ls(args) = line.parsed(words, pairs) else { panic!("{words}") };
        args.snapshot.keys.secret_key.iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys("ls u/", &[]), ["/default"]);
    assert_eq!(keys("ls site", &[]), ["/a", "/b"]);
    assert_eq!(keys("ls site", &[("DUPFS_SECRET_KEY", "c\nd")]), ["c", "d"]);
    assert_eq!(keys("ls --encrypt-secret-keyring e site", &[("DUPFS_SECRET_KEY", "c")]), ["e"]);
}

#[test]
fn options_that_need_each_other_may_come_from_different_places() {
    let line = Line::new("[defaults]\nverify-key = '/k'\n");
    let ParsedCommand::Cat(args) = line.parsed("cat --sign-key ABCDEF01 u/ x", &[]) else { panic!() };
    assert_eq!(args.snapshot.keys.verify_key, Some("/k".into()));
    let missing = line.failed("ls u/", &[("DUPFS_MEMORY", "8M")]);
    assert!(missing.contains("--sign-key <KEYID>"), "{missing}");
    assert!(missing.ends_with("; DIR/config.toml:2 sets --verify-key"), "{missing}");
    let missing = line.failed("ls", &[("DUPFS_MEMORY", "8M")]);
    assert!(missing.ends_with("; DIR/config.toml:2 sets --verify-key"), "{missing}");
}

#[test]
fn lists_of_mount_options_work_in_all_places() {
    let line =
        Line::new("[defaults]\noptions = 'allow_other,sizes=bound'\n[repository.site]\nurl = '/b'\nsizes = 'exact'\n");
    let of = |words: &str, pairs: &[(&str, &str)]| {
        let ParsedCommand::Mount(args) = line.parsed(words, pairs) else { panic!("{words}") };
        (args.allow_other, args.noexec, args.sizes == super::super::options::SizeMode::Bound)
    };
    assert_eq!(of("mount u/ m", &[]), (true, false, true));
    assert_eq!(of("mount site m", &[]), (true, false, false));
    assert_eq!(of("mount site m", &[("DUPFS_OPTIONS", "noexec,sizes=bound")]), (true, true, true));
    assert_eq!(of("mount --allow-other=false site m", &[]), (false, false, false));
    // Another command has no mount options.
    assert!(matches!(line.parsed("ls site", &[]), ParsedCommand::Ls(_)));
}

#[test]
fn an_invalid_value_is_reported_with_its_place() {
    let line = Line::new("[defaults]\nmemory = 'lots'\n[repository.site]\nurl = '/b'\ndeep = true\n");
    assert_eq!(line.failed("ls u/", &[]), "DIR/config.toml:2: memory: unknown unit \"LOTS\": give bytes as 512M or 4G");
    assert_eq!(
        line.failed("ls u/", &[("DUPFS_MEMORY", "1X")]),
        "DUPFS_MEMORY: memory: unknown unit \"X\": give bytes as 512M or 4G"
    );
    assert_eq!(
        line.failed("ls u/", &[("DUPFS_MEMORY", "1M"), ("DUPFS_LONG", "maybe")]),
        "DUPFS_LONG: long: give true or false"
    );
    // A value that is not used is not checked.
    let conflict = line.failed("verify --memory 8M --sample 5% site", &[]);
    assert!(conflict.contains("--sample <PERCENT>") && conflict.contains("cannot be used with"), "{conflict}");
    assert!(conflict.ends_with("; DIR/config.toml:5 sets --deep (--deep=false turns it off)"), "{conflict}");
    let ParsedCommand::Verify(args) = line.parsed("verify --memory 8M --sample 5% --deep=false site", &[]) else {
        panic!()
    };
    assert!(args.sample.is_some() && !args.deep);
}

#[test]
fn an_error_about_a_value_names_the_place_that_has_it() {
    let line =
        Line::new("[defaults]\ntime = 'foo'\ncache-dir = '/c'\n[repository.site]\nurl = '/b'\nsecret-key = '/k.asc'\n");
    let levels = line.gather(&["ls", "site"], &[("DUPFS_PASSPHRASE_FILE", "/p"), ("DUPFS_CACHE_DIR", "/d")]).unwrap();
    let origin_in = |error: &str| {
        let origin = levels.origin_in(error)?;
        Some(origin.replace(line.dir.path().to_str().unwrap(), "DIR"))
    };
    for (error, origin) in [
        ("--time: 'foo' is not a time", "DIR/config.toml:2 sets --time"),
        ("key file /k.asc: no such file or directory", "DIR/config.toml:6 sets --secret-key"),
        ("passphrase file /p: no such file or directory", "DUPFS_PASSPHRASE_FILE sets --passphrase-file"),
        ("the log file /p cannot be opened: permission denied", "DUPFS_PASSPHRASE_FILE sets --passphrase-file"),
        ("/d: is not writable", "DUPFS_CACHE_DIR sets --cache-dir"),
        ("s3://b/p: the URL (--cache-dir) is wrong", "DUPFS_CACHE_DIR sets --cache-dir"),
    ] {
        assert_eq!(origin_in(error).as_deref(), Some(origin), "{error}");
    }
    for other in ["--timeout: too long", "/k: no such file", "/c: is not writable", "the --time foo", "/x: see /p"] {
        assert_eq!(origin_in(other), None, "{other}");
    }
}

#[test]
fn of_quiet_and_verbose_the_one_of_the_nearer_place_counts() {
    let of = |config: &str, words: &str, pairs: &[(&str, &str)]| {
        let line = Line::new(&format!("{config}[repository.site]\nurl = '/b'\n"));
        let levels = line.gather(&words.split(' ').collect::<Vec<_>>(), pairs).unwrap();
        let matches = levels.parser().try_get_matches_from(&levels.args).unwrap();
        let cli = Cli::from_arg_matches(&matches).unwrap();
        (cli.quiet, cli.verbose)
    };
    let (quiet, verbose) = ("[defaults]\nquiet = true\n", "[defaults]\nverbose = 2\n");
    for words in ["-q ls site", "ls -q site", "ls --quiet=true site"] {
        assert_eq!(of(verbose, words, &[("DUPFS_VERBOSE", "1")]), (true, 0), "{words}");
    }
    for words in ["-v ls site", "ls -v site", "ls --verbose=1 site"] {
        assert_eq!(of(quiet, words, &[("DUPFS_QUIET", "1")]), (false, 1), "{words}");
    }
    assert_eq!(of(verbose, "ls site", &[("DUPFS_QUIET", "1")]), (true, 0));
    assert_eq!(of(quiet, "ls site", &[("DUPFS_VERBOSE", "1")]), (false, 1));
    // One that is turned off is not on anywhere.
    assert_eq!(of(verbose, "ls --quiet=false site", &[]), (false, 2));
    assert_eq!(of(quiet, "ls site", &[("DUPFS_VERBOSE", "0")]), (true, 0));
    assert_eq!(of("[defaults]\nverbose = 2\nquiet = true\n", "ls site", &[("DUPFS_QUIET", "0")]), (false, 2));
    let both = Line::new("[defaults]\nverbose = 2\nquiet = true\n").failed("ls u/", &[]);
    assert!(both.contains("DIR/config.toml:3 sets --quiet"), "{both}");
}

#[test]
fn a_stale_mount_is_cleared_also_where_the_environment_asks_for_lazy() {
    let line = Line::new("[defaults]\nlazy = true\n");
    let of = |words: &[&str]| {
        let levels = line.gather(words, &[("DUPFS_LAZY", "1")]).unwrap();
        let matches = levels.parser().try_get_matches_from(&levels.args).unwrap();
        let (_, umount) = matches.subcommand().unwrap();
        (umount.get_flag("lazy"), umount.get_flag("stale"))
    };
    assert_eq!(of(&["umount", "--stale", "m"]), (false, true));
    assert_eq!(of(&["umount", "m"]), (true, false));
}

#[test]
fn commands_without_options_need_no_configuration() {
    let line = Line::new("nonsense");
    assert!(line.gather(&["completions", "bash"], &[("DUPFS_NONSENSE", "1")]).unwrap().notes.is_empty());
    assert!(line.gather(&["help", "ls"], &[]).is_ok() && line.gather(&["--version"], &[]).is_ok());
    let error = line.gather(&["umount", "m"], &[]).unwrap_err();
    assert!(error.to_string().contains("config.toml:1: not valid TOML"), "{error}");
}

/// The words of each command with options, and its definition.
fn commands() -> Vec<(Vec<String>, Command)> {
    fn add(command: &Command, words: &[String], into: &mut Vec<(Vec<String>, Command)>) {
        let below: Vec<&Command> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
        if below.is_empty() && !LongOption::of(command).iter().all(LongOption::is_of_program) {
            into.push((words.to_vec(), command.clone()));
        }
        for below in below {
            add(below, &[words, &[below.get_name().to_owned()]].concat(), into);
        }
    }
    let mut found = Vec::new();
    add(Cli::definition(), &[], &mut found);
    found
}

/// A value that the option takes.
fn sample(option: &LongOption) -> &'static str {
    let samples =
        ["/sample", "1", "5%", "now", "old", "exact", "cp437", "dir", "standard", "text", "block", "8M", "ABCDEF01"];
    let fitting = samples.into_iter().find(|value| option.check(OsStr::new(value)).is_ok());
    fitting.unwrap_or_else(|| panic!("give a sample for --{}", option.name()))
}

#[test]
fn each_long_option_of_each_command_works_in_all_places() {
    let commands = commands();
    assert!(commands.len() >= 8, "{}", commands.len());
    for (words, definition) in commands {
        let has_url = definition.get_arguments().any(|arg| arg.get_id() == URL);
        for option in LongOption::of(&definition) {
            if [CONFIG, LIST].contains(&option.name()) {
                continue;
            }
            let is_flag = matches!(option.kind(), OptionKind::Flag | OptionKind::Count);
            let (value, key) = match is_flag {
                true => ("true", format!("{} = true\n", option.name())),
                false => (sample(&option), format!("{} = '{}'\n", option.name(), sample(&option))),
            };
            let operands: &[&str] = if has_url { &["site"] } else { &[] };
            let typed: Vec<&str> = words.iter().map(String::as_str).chain(operands.iter().copied()).collect();
            let argument = format!("--{}={value}", option.name());
            let variable = option.variable();
            let url = "[repository.site]\nurl = '/backup'\n";
            let expected = match is_flag {
                true => OsString::from(format!("--{}", option.name())),
                false => argument.clone().into(),
            };
            let places = [
                ("command line", url.to_owned(), Some(argument.as_str()), vec![]),
                ("environment", url.to_owned(), None, vec![(variable.as_str(), value)]),
                ("defaults", format!("[defaults]\n{key}{url}"), None, vec![]),
                ("repository", format!("{url}{key}"), None, vec![]),
            ];
            for (place, config, argument, variables) in places {
                if place == "repository" && !has_url {
                    continue;
                }
                let line = Line::new(&config);
                let typed: Vec<&str> = typed.iter().copied().chain(argument).collect();
                let levels = line.gather(&typed, &variables).unwrap();
                assert!(levels.args.contains(&expected), "{place}: {words:?} --{}: {levels:?}", option.name());
                assert_eq!(levels.notes, [""; 0], "{place}: {words:?} --{}", option.name());
                // And the parser knows it.
                let parsed = levels.parser().ignore_errors(true).try_get_matches_from(&levels.args).unwrap();
                let options = LongOption::of(&definition);
                assert!(GivenArguments::of(&parsed, &options).options.contains(option.name()), "{place}: {levels:?}");
            }
        }
    }
}
