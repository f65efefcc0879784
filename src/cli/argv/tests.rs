use clap::Parser;

use super::super::args::{Command, MountArgs};
use super::super::options::SizeMode;
use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

fn mount(line: &str) -> MountArgs {
    let arguments = normalise(words(line)).unwrap();
    match Cli::try_parse_from(arguments.args).unwrap().command {
        Command::Mount(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn refused(line: &str) -> String {
    normalise(words(line)).unwrap_err().to_string()
}

#[test]
fn the_line_of_an_fstab_is_understood() {
    let args = mount(
        "/sbin/mount.fuse.dupfs s3://bucket/prefix /mnt/backup -o ro,noauto,user,_netdev,x-systemd.automount,time=now",
    );
    assert_eq!(args.repo.url, "s3://bucket/prefix");
    assert_eq!(args.mountpoint, Path::new("/mnt/backup"));
    assert_eq!(args.time.time.as_deref(), Some("now"));
    assert!(!args.foreground && !args.allow_other);
}

#[test]
fn the_interval_of_watch_is_a_number_and_what_follows_the_mount_point() {
    let status = |line: &str| match Cli::try_parse_from(normalise(words(line)).unwrap().args).unwrap().command {
        Command::Status(args) => (args.watch.map(|span| span.0.as_secs()), args.mountpoint),
        other => panic!("{other:?}"),
    };
    let mnt = Some(Path::new("/mnt").to_owned());
    assert_eq!(status("dupfs status"), (None, None));
    assert_eq!(status("dupfs status --watch"), (Some(2), None));
    assert_eq!(status("dupfs status --watch /mnt"), (Some(2), mnt.clone()));
    assert_eq!(status("dupfs status --watch 5"), (Some(5), None));
    assert_eq!(status("dupfs status -w 1m /mnt"), (Some(60), mnt.clone()));
    assert_eq!(status("dupfs status --watch=7 /mnt"), (Some(7), mnt.clone()));
    assert_eq!(status("dupfs status /mnt -w"), (Some(2), mnt));
}

#[test]
fn commands_of_duplicity_are_aliases() {
    let command = |line: &str| Cli::try_parse_from(normalise(words(line)).unwrap().args).unwrap().command;
    assert!(matches!(command("dupfs collection-status u"), Command::Sets(_)));
    assert!(matches!(command("dupfs unmount m"), Command::Umount(_)));
    for (line, recursive) in [
        ("dupfs list-current-files u", true),
        ("dupfs -v --log-file f list-current-files --time 3D u", true),
        ("dupfs ls u list-current-files", false),
    ] {
        let Command::Ls(args) = command(line) else { panic!("{line}") };
        assert_eq!(args.recursive, recursive, "{line}");
    }
}

#[test]
fn flags_of_mount_8_are_not_those_of_dupfs_mount() {
    let arguments = normalise(words("mount.dupfs dupfs#file:///b /mnt -sfnv -t fuse.dupfs -o rw,nonsense")).unwrap();
    assert!(arguments.fake);
    assert_eq!(arguments.args, words("mount.dupfs mount -v -- file:///b /mnt"));
    assert!(refused("mount.dupfs a b -N 1").contains("namespace"));
}

#[test]
fn mount_fuse_calls_the_program_without_a_command() {
    let args = mount("/usr/bin/dupfs s3://bucket /mnt/backup -o rw,dev,suid,time=now");
    assert_eq!((args.repo.url.to_str(), args.mountpoint.to_str()), (Some("s3://bucket"), Some("/mnt/backup")));
    for own in ["dupfs ls /backup -o x", "dupfs help /mnt -o x", "dupfs s3://b mnt -o x", "dupfs s3://b /mnt -x y"] {
        assert!(!is_called_by_mount(&words(own)), "{own}");
    }
    for helper in ["/sbin/mount.dupfs u m", "mount.fuse.dupfs u m -o ro"] {
        assert!(is_called_by_mount(&words(helper)), "{helper}");
    }
}

#[test]
fn a_failed_mount_from_the_network_gets_a_hint_if_its_line_does_not_wait_for_it() {
    for (line, has_hint) in [
        ("mount.dupfs s3://b /mnt -o rw", true),
        ("mount.dupfs s3://b /mnt -o rw,_netdev", false),
        ("mount.dupfs file:///b /mnt -o rw", false),
        ("mount.dupfs site /mnt -o rw", false),
        ("dupfs mount s3://b /mnt", false),
    ] {
        assert_eq!(network_hint(&words(line)).is_some(), has_hint, "{line}");
    }
}

#[test]
fn a_helper_prints_help_and_refuses_to_remount() {
    assert_eq!(normalise(words("mount.dupfs -V")).unwrap().args, words("dupfs mount --version"));
    assert_eq!(normalise(words("mount.dupfs --help")).unwrap().args, words("dupfs mount --help"));
    assert!(refused("mount.dupfs u m -o remount,ro").ends_with("unmount it, and mount it again"));
}

#[test]
fn each_item_of_a_list_is_an_option() {
    let args = mount(
        "dupfs mount u m -o allow_other,default_permissions,sizes=bound,nonempty -oumask=022,secret-key=/a\\,b,uid=7",
    );
    assert!(args.allow_other && args.default_permissions && args.nonempty);
    assert_eq!(args.sizes, SizeMode::Bound);
    assert_eq!(args.owners.umask, Some(0o022));
    assert_eq!(args.owners.uid, Some(7));
    assert_eq!(args.keys.secret_key, [Path::new("/a,b")]);
    let args = mount("dupfs mount -o secret_key=/k,restore-time=3D,numeric_owner --options=noexec u m");
    assert!(args.noexec && args.owners.numeric_owner);
    assert_eq!(args.time.time.as_deref(), Some("3D"));
}

#[test]
fn wrong_items_are_named() {
    assert_eq!(refused("dupfs mount u m -o ro,speed=9"), "unknown mount option speed: dupfs mount --help lists them");
    assert_eq!(refused("dupfs mount u m -o time"), "mount option time needs a value: time=...");
    assert_eq!(
        refused("dupfs mount u m -o allow_other=9"),
        "mount option allow_other takes no value but true and false"
    );
    assert_eq!(normalise(words("dupfs mount u m -o noexec=no")).unwrap().args, words("dupfs mount u m --noexec=no"));
    assert_eq!(refused("dupfs mount u m -o options=ro"), "unknown mount option options: dupfs mount --help lists them");
    assert_eq!(refused("dupfs mount u m -o"), "-o needs a list of options");
}

#[test]
fn a_wrong_value_of_a_mount_option_is_named_with_the_reason() {
    for (item, reason) in [
        ("memory=abc", "unknown unit \"ABC\": give bytes as 512M or 4G"),
        ("sizes=foo", "give one of: exact, bound"),
        ("zip_names=x", "no such encoding; known are cp437"),
        ("umask=9", "give an octal number up to 777, such as 022"),
        ("secret_key=", "give a value"),
    ] {
        let expected = format!("mount option {item}: {reason}");
        for line in ["mount.dupfs u /m -o ro,", "dupfs mount u m -o "] {
            let refused = refused(&format!("{line}{item}"));
            assert!(refused.starts_with(&expected), "{refused}");
        }
        // The option is known, so -s does not ignore it.
        assert!(refused(&format!("mount.dupfs u /m -s -o {item}")).starts_with(&expected), "{item}");
    }
    // Internal options are no mount options.
    assert!(refused("mount.dupfs u /m -o report_ready").starts_with("unknown mount option report_ready"));
}

#[test]
fn a_message_about_options_names_them_as_mount_8_has_them() {
    for (message, expected) in [
        (
            "the argument '--sign-key <KEYID>' cannot be used with '--archive-dir <DIR>'",
            "mount option sign_key cannot be used with mount option archive_dir",
        ),
        ("--time: 'foo' is not a time", "mount option time: 'foo' is not a time"),
        ("export it: gpg --armor --export 1234", "export it: gpg --armor --export 1234"),
        (
            "--cache-dir: remove it with: dupfs cache clear --cache-dir /c; or give --no-index",
            "mount option cache_dir: remove it with: dupfs cache clear --cache-dir /c; or give mount option no_index",
        ),
        ("'--quiet' cannot be used with '--verbose...'", "mount option quiet cannot be used with mount option verbose"),
        ("--memory 1X: unknown unit", "mount option memory 1X: unknown unit"),
    ] {
        assert_eq!(in_words_of_mount(message), expected);
    }
}

#[test]
fn a_mistyped_mount_option_gets_a_suggestion() {
    assert_eq!(refused("dupfs mount u m -o secretkey=/k"), "unknown mount option secretkey: did you mean secret_key?");
    assert_eq!(refused("dupfs mount u m -o alow_other"), "unknown mount option alow_other: did you mean allow_other?");
    for secret in ["passphrase", "password"] {
        let remedy = "give the name of a file instead, passphrase_file=...";
        assert_eq!(
            refused(&format!("dupfs mount u m -o {secret}=x")),
            format!("unknown mount option {secret}: {remedy}")
        );
    }
    assert_eq!(refused("dupfs mount u m -o _netdevv"), "unknown mount option _netdevv: did you mean _netdev?");
}

#[test]
fn a_writable_mount_is_refused_unless_mount_8_requests_it() {
    let notes = |line| normalise(words(line)).unwrap().notes;
    assert_eq!(notes("dupfs mount u m -o rw,uid=7"), ["-o rw: a dupfs mount is always read-only"]);
    assert_eq!(notes("dupfs mount u m -o ro"), [""; 0]);
    assert_eq!(notes("mount.dupfs u m -o rw"), [""; 0]);
}

#[test]
fn options_that_matter_when_writing_are_dropped_and_named() {
    let line = "dupfs mount --s3-european-buckets --volsize 25 --full-if-older-than=1M -v5 --encrypt-key ABCD u m -v 4 \
                --asynchronous-upload --s3-multipart-chunk-size=10 -o volsize=200,s3_use_ia --verbosity info";
    let arguments = normalise(words(line)).unwrap();
    assert_eq!(arguments.args, words("dupfs mount u m"));
    let dropped = arguments.dropped.join(" ");
    let expected = "--s3-european-buckets --volsize --full-if-older-than -v5 --encrypt-key -v --asynchronous-upload \
                    --s3-multipart-chunk-size --volsize --s3-use-ia --verbosity";
    assert_eq!(dropped, expected);
}

#[test]
fn options_for_gpg_are_taken_with_values_that_look_like_options() {
    let args = mount("dupfs mount --gpg-binary /opt/gpg --gpg-options --options=/c -o gpg_options=--homedir=/k u m");
    assert_eq!(args.keys.gpg_binary, Some("/opt/gpg".into()));
    assert_eq!(args.keys.gpg_options, ["--options=/c", "--homedir=/k"]);
    let typed = ["dupfs", "mount", "--gpg-options", "-z 9 --homedir /k", "--volsize", "5", "u", "m"];
    let arguments = normalise(typed.map(OsString::from).to_vec()).unwrap();
    assert_eq!(arguments.args, ["dupfs", "mount", "--gpg-options=-z 9 --homedir /k", "u", "m"]);
    assert_eq!(arguments.dropped, ["--volsize"]);
}

#[test]
fn nothing_is_changed_after_two_dashes_or_in_other_commands() {
    let line = "dupfs cat file:///b -- -o --volsize 25";
    assert_eq!(normalise(words(line)).unwrap().args, words(line));
    let line = "dupfs ls -o ro";
    assert_eq!(normalise(words(line)).unwrap().args, words(line));
    let raw = vec!["dupfs".into(), "cat".into(), std::os::unix::ffi::OsStringExt::from_vec(b"\xff".to_vec())];
    assert_eq!(normalise(raw.clone()).unwrap().args, raw);
}

#[test]
fn a_dry_run_is_dropped_only_where_nothing_is_removed() {
    let arguments = normalise(words("dupfs cache --log-file l prune --dry-run")).unwrap();
    assert_eq!((arguments.args, arguments.dropped.len()), (words("dupfs cache --log-file l prune --dry-run"), 0));
    assert_eq!(normalise(words("dupfs ls --dry-run u")).unwrap().dropped, ["--dry-run"]);
}

#[test]
fn no_option_of_dupfs_is_dropped() {
    for (name, _) in WITHOUT_EFFECT {
        assert!(option_of_mount(name).is_none(), "--{name}");
    }
    assert!(option_of_mount("log-file").is_some_and(|option| option.takes_value()));
}
