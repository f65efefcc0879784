//! The commands in the documents, run as they are written: in a separate mount namespace, with a backup, a configuration
//! and directories of the names that the documents use.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::duplicity::{Mode, Repository};
use crate::support::exec::{self, Dupfs};
use crate::support::mount::require_fuse;
use crate::support::{Scratch, noise};

/// The times of the snapshots in the documents: 2017-01-21 and 2017-01-28, 02:15 UTC.
const TIMES: [i64; 2] = [1_484_964_900, 1_485_569_700];

/// Programs whose lines in blocks of code are commands.
const PROGRAMS: [&str; 28] = [
    "apt",
    "apt-get",
    "aws",
    "bash",
    "cargo",
    "cp",
    "curl",
    "docker",
    "duplicity",
    "dupfs",
    "export",
    "findmnt",
    "getfattr",
    "gpg",
    "install",
    "journalctl",
    "ln",
    "loginctl",
    "mount",
    "mysql",
    "podman",
    "rclone",
    "rsync",
    "sh",
    "systemctl",
    "tar",
    "umount",
    "vagrant",
];

/// Beginnings of commands that are not run, with the reason.
const NOT_RUN: [(&str, &str); 16] = [
    ("apt install rclone", "scripts/test runs it"),
    ("apt-get install ./dupfs", "tests/mount/package.rs installs the package"),
    ("apt-get remove dupfs", "tests/mount/package.rs removes the package"),
    ("aws s3api restore-object", "dupfs prints it, and tests/storage/s3/cold.rs compares it"),
    ("cargo install", "it compiles everything once more"),
    ("install target/release/dupfs", "it is for the program that cargo made"),
    ("ln -s /usr/local/bin/dupfs", "tests/mount/helper.rs makes such links"),
    ("mount -t dupfs", "tests/mount/helper.rs mounts by mount(8)"),
    (
        "getfattr --only-values -n user.dupfs.errors",
        "it needs a mount, and tests/mount/newcomer.rs reads the attribute",
    ),
    ("systemctl", "tests/mount/package.rs runs it in systems that have booted"),
    ("journalctl", "tests/mount/package.rs runs it in systems that have booted"),
    ("podman", "it needs a container engine"),
    ("mysql shop", "tests/oracle/runbook.rs restores a database"),
    ("scripts/", "the scripts compile everything, or measure for minutes"),
    ("dupfs mount sftp://joe@backup.example.com", "tests/storage runs it with a server of SSH"),
    ("dupfs volumes --thaw", "its output is for AWS's tool, and tests/storage/s3/cold.rs compares it"),
];

/// Replacements of words in commands.
const WORDS: [(&str, &str); 7] = [
    ("URL", "file:///srv/backups/site"),
    ("DIR", "/srv/source"),
    ("MOUNTPOINT", "/srv/mnt"),
    ("/mnt", "/srv/mnt"),
    ("/mnt/backup", "/srv/mnt-backup"),
    ("s3://bucket/prefix", "file:///srv/backups/site"),
    ("/etc", "/srv/source/etc"),
];

/// The lines with a command in the blocks of code of `text`. Lines with placeholders for values are no commands.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for line in text.lines() {
        is_fenced ^= line.starts_with("```");
        let line = match line.strip_prefix("    ") {
            Some(line) => line,
            None if is_fenced => line,
            None => continue,
        };
        let line = line.strip_prefix("sudo ").unwrap_or(line);
        // Variables in front of a command.
        let is_variable = |word: &&str| {
            word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        };
        let variables = line.split(' ').take_while(is_variable).map(|word| word.len() + 1).sum();
        let program = line.get(variables..).unwrap_or_default().split(' ').next().unwrap_or_default();
        let has_placeholder = line.contains(" [")
            || line.match_indices(" <").any(|(at, _)| line[at + 2..].starts_with(|c: char| c.is_ascii_uppercase()));
        // The columns behind it have an explanation.
        let line = line.get(variables..).unwrap_or_default().split("   ").next().unwrap_or_default().trim_end();
        if (PROGRAMS.contains(&program) || program.starts_with("scripts/")) && !has_placeholder && !line.contains("...")
        {
            found.push(line.to_owned());
        }
    }
    found
}

/// `line` with the names of the test.
fn substituted(line: &str) -> String {
    let word = |word: &str| WORDS.iter().find(|(name, _)| *name == word).map_or(word, |(_, value)| value).to_owned();
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A machine as the documents describe it, below `scratch`.
fn machine(scratch: &Scratch) {
    let source = scratch.dir("srv/source");
    let write = |path: &str, content: &[u8]| {
        let path = source.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    };
    write("etc/hosts", b"127.0.0.1 localhost\n");
    write("etc/site.conf", b"a = 1\n");
    write("var/lib/mysql/shop.ibd", &noise(1, 300_000));
    write("var/backups/shop.sql", &noise(2, 100_000));
    write("home/user/.ssh/config", b"Host *\n");
    fs::File::create(source.join("home/user/image")).unwrap().set_len(101 << 20).unwrap();
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric("secret".to_owned()), &scratch.dir("work"));
    repo.backup(true, &source, TIMES[0]);
    write("etc/site.conf", b"a = 22\n");
    // duplicity takes a file of the same time for unchanged.
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_485_000_000);
    fs::File::open(source.join("etc/site.conf")).unwrap().set_modified(time).unwrap();
    repo.backup(false, &source, TIMES[1]);
    for place in ["srv/backups", "home/user-data/backup", "media/you/DISK"] {
        scratch.dir(place);
    }
    for place in ["srv/backups/site", "home/user-data/backup/encrypted", "media/you/DISK/HOSTNAME"] {
        assert!(
            Command::new("cp").arg("-a").arg(repo.dir()).arg(scratch.path().join(place)).status().unwrap().success()
        );
    }
    let key = scratch.path().join("home/user-data/backup/secret_key.txt");
    fs::write(&key, "secret\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let config = scratch.dir("srv/user/.config/dupfs").join("config.toml");
    fs::write(&config, "[repository.site]\nurl = \"file:///srv/backups/site\"\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    // The directory of the program may be one that is covered.
    fs::copy(env!("CARGO_BIN_EXE_dupfs"), scratch.dir("srv/bin").join("dupfs")).unwrap();
    for dir in ["srv/mnt", "srv/mnt-backup", "srv/user/backup", "tmp", "usr/local/share/man/man1", "usr/share/man/man1"]
    {
        scratch.dir(dir);
    }
    for dir in ["bash-completion/completions", "fish/vendor_completions.d", "zsh/vendor-completions"] {
        scratch.dir(&format!("usr/share/{dir}"));
    }
}

/// Runs `line` on the machine below `root`: its directories cover those of the same names.
fn run(root: &Path, line: &str) -> Result<(), String> {
    // /tmp last: the directories are below it.
    let script = "set -e\n\
        for dir in srv media home usr/local/share/man usr/share/man usr/share/bash-completion usr/share/fish usr/share/zsh tmp\n\
        do if [ -d \"/$dir\" ]; then mount --bind \"$1/$dir\" \"/$dir\"; fi; done\n\
        cd /srv/user\n\
        sh -ec \"$2\"\n\
        for place in /srv/mnt /srv/mnt-backup /srv/user/backup\n\
        do if mountpoint -q \"$place\"; then ls \"$place\" > /dev/null; dupfs umount \"$place\"; fi; done";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(root).arg(line);
    for (name, _) in Dupfs::new(root).command("ls").get_envs() {
        command.env_remove(name);
    }
    let path = format!("/srv/bin:{}", std::env::var("PATH").unwrap());
    command.env("PATH", path).env("HOME", "/srv/user").env("PASSPHRASE", "secret").stdin(Stdio::null());
    let output = exec::output(&mut command);
    match output.status.success() {
        true => Ok(()),
        false => {
            let (out, err) = (exec::tail(&output.stdout), exec::tail(&output.stderr));
            Err(format!("{line}: {:?}: {out}{err}", output.status.code()))
        }
    }
}

#[test]
fn each_command_in_the_documents_works_as_it_is_written() {
    require_fuse();
    let scratch = Scratch::new();
    machine(&scratch);
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut paths: Vec<_> = fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path()).collect();
    // Its procedures are run by another test.
    paths.retain(|path| path.extension().is_some_and(|own| own == "md") && !path.ends_with("RUNBOOK.md"));
    paths.sort();
    let (mut count, mut failed, mut left_out) = (0, Vec::new(), Vec::new());
    for path in paths {
        for line in commands(&fs::read_to_string(&path).unwrap()) {
            if let Some(reason) = NOT_RUN.iter().position(|(begin, _)| line.starts_with(begin)) {
                left_out.push(reason);
                continue;
            }
            count += 1;
            for name in ["srv/restored", "tmp/hosts"] {
                let place = scratch.path().join(name);
                let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place));
            }
            if let Err(error) = run(scratch.path(), &substituted(&line)) {
                failed.push(format!("{}: {error}", path.file_name().unwrap().display()));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {count}:\n{}", failed.len(), failed.join("\n"));
    assert!(count >= 39, "{count}");
    for (number, (begin, _)) in NOT_RUN.iter().enumerate() {
        assert!(left_out.contains(&number), "no document has the command {begin}");
    }
}

#[test]
fn a_command_in_a_document_that_fails_is_found() {
    let text = "Run\n\n    dupfs ls URL no/such/path        prints it\n\n```\ndupfs cat <URL>\ndupfs sets URL\n\
                A_B=c systemctl start x\nsite /mnt fuse.dupfs\nmysql < x\n```\n";
    assert_eq!(commands(text), ["dupfs ls URL no/such/path", "dupfs sets URL", "systemctl start x", "mysql < x"]);
    let scratch = Scratch::new();
    machine(&scratch);
    let error = run(scratch.path(), &substituted("dupfs ls URL no/such/path")).unwrap_err();
    assert!(error.contains("Some(3)") && error.contains("no/such"), "{error}");
    run(scratch.path(), &substituted("dupfs sets URL")).unwrap();
}
