//! The commands in the documents, run as they are written: in a separate mount namespace, with a backup, a bucket, a server, a
//! configuration and directories of the names that the documents use.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::duplicity::{Mode, Repository, environments};
use crate::support::exec::{self, Dupfs};
use crate::support::mount::require_fuse;
use crate::support::remote_servers::RemoteServer;
use crate::support::s3::{KEY_ID, S3Server, SECRET};
use crate::support::{Scratch, noise};

/// The times of the snapshots in the documents: 2017-01-21 and 2017-01-28, 02:15 UTC.
const TIMES: [i64; 2] = [1_484_964_900, 1_485_569_700];

/// The dump of a database that the documents load.
const DUMP: &[u8] = b"CREATE TABLE shop (id INT);\n";

/// Programs whose lines in blocks of code are commands.
const PROGRAMS: [&str; 29] = [
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
    "kill",
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
const NOT_RUN: [(&str, &str); 14] = [
    ("apt install rclone", "scripts/test runs it"),
    ("apt-get install ./dupfs", "tests/mount/package.rs runs it in new systems"),
    ("install -D -m 644 /usr/share/doc", "tests/mount/package.rs runs it in new systems"),
    ("apt-get remove dupfs", "tests/mount/package.rs runs it in new systems"),
    (
        "aws s3api restore-object",
        "tests/storage/s3/cold.rs runs it with the program of Amazon, as do those that dupfs prints",
    ),
    ("cargo build --profile quick --workspace --bins --bench corpus", "scripts/test builds it"),
    ("cargo install", "tests/mount/readme_session.rs runs it: it compiles everything once more"),
    ("systemctl", "tests/mount/package.rs runs it in systems that have booted"),
    ("journalctl", "tests/mount/package.rs runs it in systems that have booted"),
    ("podman", "tests/mount/containers.rs runs it"),
    ("scripts/package", "tests/mount/package.rs and tarball.rs run it"),
    ("scripts/demo", "tests/mount/readme_session.rs runs it: it compiles everything once more"),
    ("scripts/test", "it runs this test"),
    ("scripts/bench", "it measures for minutes to hours"),
];

/// Replacements of words in commands: placeholders, and names that are others on this machine.
const WORDS: [(&str, &str); 22] = [
    ("URL", "file:///srv/backups/site"),
    ("DIR", "/srv/source"),
    ("MOUNTPOINT", "/srv/mnt"),
    ("PATH", "etc/hosts"),
    ("PATTERN", "'*.sql'"),
    ("TIME", "3D"),
    ("T", "2017-01-28"),
    ("P", "etc/hosts"),
    ("DEST", "/srv/restored"),
    ("SHELL", "zsh"),
    ("COMMAND", "mount"),
    ("FILE", "/srv/mnt/latest/etc/hosts"),
    ("dump.sql", "var/backups/shop.sql"),
    ("/srv/www-restored", "/srv/restored"),
    ("/tmp/hosts", "/srv/restored"),
    ("versions/PATH", "versions/etc/hosts"),
    ("/mnt", "/srv/mnt"),
    ("/mnt/backup", "/srv/mnt-backup"),
    ("/mnt/site", "/srv/mnt-site"),
    ("/srv/", "/srv/user/"),
    ("/etc", "/srv/source/etc"),
    ("file:///backups/shop", "file:///srv/backups/site"),
];

/// Replacements of commands whose words have another meaning.
const LINES: [(&str, &str); 2] = [
    ("dupfs man DIR", "dupfs man /usr/share/man/man1"),
    ("dupfs mount sftp://joe@backup.example.com/backups/web /mnt/backup", "dupfs mount $SFTP_URL /srv/mnt-backup"),
];

/// Beginnings of commands that need another one first.
const BEFORE: [(&str, &str); 14] = [
    ("cp -a /mnt/", "dupfs mount URL /mnt"),
    ("du ", "dupfs mount URL /mnt"),
    ("dupfs cache clear s3:", "dupfs ls s3://bucket/prefix"),
    ("dupfs umount /mnt", "dupfs mount URL /mnt"),
    ("dupfs umount MOUNTPOINT", "dupfs mount URL /mnt"),
    ("find /mnt", "dupfs mount URL /mnt"),
    ("findmnt ", "dupfs mount URL /mnt"),
    ("getfattr -n user.dupfs.cost", "dupfs mount URL /mnt/backup"),
    ("getfattr", "dupfs mount URL /mnt"),
    ("gpg ", "gpg --batch --passphrase '' --quick-gen-key KEY"),
    ("ls ", "dupfs mount URL /mnt"),
    ("kill -USR1", "dupfs mount URL /mnt/backup"),
    ("mount -t dupfs", "ln -s /usr/local/bin/dupfs /usr/sbin/mount.dupfs"),
    ("mysql", "dupfs mount URL /mnt"),
];

/// The command in a line of a block of code, without the explanation in the columns behind it. Optional parts of a synopsis are
/// left out. `None` if the line is no command, or has an ellipsis for a value.
fn command(line: &str) -> Option<String> {
    let line = line.strip_prefix("sudo ").unwrap_or(line);
    // Variables in front of a command.
    let is_variable = |word: &&str| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let variables = line.split(' ').take_while(is_variable).map(|word| word.len() + 1).sum();
    let line = line.get(variables..).unwrap_or_default();
    let program = line.split(' ').next().unwrap_or_default();
    if !PROGRAMS.contains(&program) && !program.starts_with("scripts/") {
        return None;
    }
    // A synopsis has placeholders in angle brackets, and optional parts in square ones.
    let is_placeholder = |(at, _): (usize, &str)| line[at + 2..].starts_with(|c: char| c.is_ascii_uppercase());
    let line = if line.contains(" [") || line.match_indices(" <").any(is_placeholder) {
        // Behind the placeholders is an explanation.
        let is_own = |(number, word): &(usize, &str)| *number < 2 || word.starts_with(['[', '<']);
        let words =
            line.split_whitespace().enumerate().take_while(is_own).map(|(_, word)| word.trim_end_matches("..."));
        words.filter_map(of_synopsis).collect::<Vec<_>>().join(" ")
    } else {
        // So is one in the columns behind a command.
        line.split("   ").next().unwrap_or_default().trim_end().to_owned()
    };
    let has_value = !line.contains("=...") && !line.contains("://...");
    has_value.then_some(line)
}

/// A word of a synopsis: a placeholder without its brackets, and nothing for an optional part.
fn of_synopsis(word: &str) -> Option<&str> {
    match word.strip_prefix('<') {
        Some(placeholder) => placeholder.strip_suffix('>'),
        None => (!word.starts_with('[')).then_some(word),
    }
}

/// The commands in the blocks of code of `text`, and those within its sentences: those of dupfs with an operand, and whole ones.
fn commands(text: &str) -> Vec<String> {
    let (mut found, mut sentences) = (Vec::new(), String::new());
    let mut is_fenced = false;
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        let code = if is_fenced { Some(line.trim_start()) } else { line.strip_prefix("    ") };
        match code {
            Some(code) => found.extend(command(code)),
            None if !is_fence => sentences = sentences + line.trim() + " ",
            None => {}
        }
    }
    let spans = sentences.split('`').skip(1).step_by(2);
    // Else it is the name of a command, or of an option.
    let is_command = |span: &&str| {
        let has_operand = || span.split(' ').skip(2).any(|word| OPERANDS.contains(&word));
        WHOLE.contains(span) || span.starts_with("dupfs ") && has_operand()
    };
    found.extend(spans.filter(is_command).map(str::to_owned));
    found
}

/// Operands of commands in sentences.
const OPERANDS: [&str; 6] = ["URL", "site", "/mnt", "COMMAND", "--help", "/usr/local/share/man/man1"];

/// Commands in sentences that are whole: those of dupfs without an operand, and those of other programs.
const WHOLE: [&str; 21] = [
    "dupfs status",
    "dupfs cache",
    "dupfs cache ls",
    "dupfs cache clear",
    "dupfs cache prune",
    "dupfs --version",
    "cp -a /mnt/latest/srv/www /srv/",
    "du -sh /mnt",
    "duplicity collection-status URL",
    "duplicity list-current-files --time T URL",
    "duplicity restore --path-to-restore P --time T URL DEST",
    "duplicity verify URL DIR",
    "find /mnt",
    "findmnt -t fuse.dupfs",
    "getfattr --only-values -n user.dupfs.errors /mnt",
    "getfattr -n user.dupfs.volumes FILE",
    "gpg --armor --export-secret-keys KEY > key.asc",
    "ls /mnt/snapshots",
    "ls -l /mnt",
    "mysql shop < /mnt/unpacked/latest/var/backups/latest.tbz2/latest/shop.sql",
    "rclone listremotes",
];

/// `line` with the names of the test.
fn substituted(line: &str) -> String {
    if let Some((_, other)) = LINES.iter().find(|(known, _)| *known == line) {
        return (*other).to_owned();
    }
    let word = |word: &str| match WORDS.iter().find(|(name, _)| *name == word) {
        Some((_, value)) => (*value).to_owned(),
        None if word.starts_with("/mnt/") => format!("/srv{word}"),
        None => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A machine as the documents describe it: its files are below `scratch`, and its backup is also in a bucket and on a server.
struct Machine {
    scratch: Scratch,
    bucket: S3Server,
    server: RemoteServer,
}

/// The directories of the machine that cover those of the same names.
const COVERED: &str = "srv media home usr/local/bin usr/local/share/man usr/share/man usr/share/bash-completion usr/share/fish \
                       usr/share/zsh";

impl Machine {
    fn new() -> Self {
        let scratch = Scratch::new();
        let source = scratch.dir("srv/source");
        let write = |path: &str, content: &[u8]| {
            let path = source.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
        };
        write("etc/hosts", b"127.0.0.1 localhost\n");
        write("etc/site.conf", b"a = 1\n");
        write("var/lib/mysql/shop.ibd", &noise(1, 300_000));
        write("var/backups/shop.sql", DUMP);
        write("var/backups/large.sql", &noise(2, 100_000));
        write("srv/www/index.html", b"<p>Tea</p>\n");
        write("home/user/.ssh/config", b"Host *\n");
        fs::File::create(source.join("home/user/image")).unwrap().set_len(101 << 20).unwrap();
        let packed = |packer: &[&str], path: &str| {
            let (program, arguments) = packer.split_first().unwrap();
            let file = source.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let mut command = Command::new(program);
            fs::write(&file, exec::run(command.args(arguments).current_dir(source.join("var/backups")))).unwrap();
        };
        packed(&["gzip", "-c", "shop.sql"], "var/lib/automysqlbackup/daily/shop/shop_2026-01-20_06h25m.Tuesday.sql.gz");
        let dumps = ["tar", "-cj", "--transform=s,^,latest/,", "shop.sql"];
        packed(&dumps, "var/backups/latest.tbz2");
        let repo = Repository::new("3.2.1", |_| Mode::Symmetric("secret".to_owned()), &scratch.dir("work"));
        repo.backup(true, &source, TIMES[0]);
        write("etc/site.conf", b"a = 22\n");
        // duplicity takes a file of the same time for unchanged.
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_485_000_000);
        fs::File::open(source.join("etc/site.conf")).unwrap().set_modified(time).unwrap();
        repo.backup(false, &source, TIMES[1]);
        let (bucket, server) = (S3Server::start(), RemoteServer::ssh());
        for place in ["srv/backups", "home/user-data/backup", "media/you/DISK"] {
            scratch.dir(place);
        }
        let local = ["srv/backups/site", "home/user-data/backup/encrypted", "media/you/DISK/HOSTNAME"];
        let places = local.map(|place| scratch.path().join(place));
        for place in places.into_iter().chain([bucket.bucket().join("prefix"), server.root().join("web")]) {
            exec::run(Command::new("cp").arg("-a").arg(repo.dir()).arg(place));
        }
        let machine = Self { scratch, bucket, server };
        machine.configure();
        machine
    }

    /// Writes the keys, the configuration, and the programs and directories that the documents expect.
    fn configure(&self) {
        let scratch = &self.scratch;
        let key = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/demo-key.secret.asc")).unwrap();
        let config = "[repository.site]\nurl = \"file:///srv/backups/site\"\n";
        for (directory, name, content) in [
            ("home/user-data/backup", "secret_key.txt", b"secret\n".as_slice()),
            ("srv/user", "passphrase", b"secret\n"),
            ("srv/user", "key.asc", &key),
            ("etc/dupfs", "key.asc", &key),
            ("srv/user/.config/dupfs", "config.toml", config.as_bytes()),
            // mount(8) hides the home directory from its helper.
            ("etc/dupfs", "config.toml", config.as_bytes()),
        ] {
            let file = scratch.dir(directory).join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        // The directory of the program may be one that is covered.
        for directory in ["srv/bin", "srv/user/target/release", "usr/local/bin"] {
            fs::copy(env!("CARGO_BIN_EXE_dupfs"), scratch.dir(directory).join("dupfs")).unwrap();
        }
        // A database server that takes the one dump only.
        fs::write(scratch.path().join("srv/dump"), DUMP).unwrap();
        let mysql = scratch.path().join("srv/bin/mysql");
        fs::write(&mysql, "#!/bin/sh\nexec cmp - /srv/dump\n").unwrap();
        fs::set_permissions(mysql, fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["srv/mnt", "srv/mnt-backup", "srv/mnt-site", "srv/user/backup", "sbin", "etc-work", "sbin-work"] {
            scratch.dir(dir);
        }
        for dir in ["usr/local/share/man/man1", "usr/share/man/man1"] {
            scratch.dir(dir);
        }
        for dir in ["bash-completion/completions", "fish/vendor_completions.d", "zsh/vendor-completions"] {
            scratch.dir(&format!("usr/share/{dir}"));
        }
    }

    /// Runs `line`, as it is in a document.
    fn run(&self, line: &str) -> Result<(), String> {
        for name in ["srv/restored", "srv/user/www", "sbin/mount.dupfs", "sbin/mount.fuse.dupfs"] {
            let place = self.scratch.path().join(name);
            let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place));
        }
        let first = BEFORE.iter().find(|(begin, _)| line.starts_with(begin)).map_or("true", |(_, first)| first);
        let script = "set -e\n\
            machine=$1\n\
            for dir in $4\n\
            do if [ -d \"/$dir\" ]; then mount --bind \"$machine/$dir\" \"/$dir\"; fi; done\n\
            mount -t overlay overlay -o lowerdir=/etc,upperdir=$machine/etc,workdir=$machine/etc-work /etc\n\
            mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=$machine/sbin,workdir=$machine/sbin-work /usr/sbin\n\
            cd /srv/user\n\
            sh -ec \"$3\"\n\
            sh -ec \"$2\"\n\
            for place in /srv/mnt /srv/mnt-backup /srv/mnt-site /srv/user/backup\n\
            do if mountpoint -q \"$place\"; then ls \"$place\" > /dev/null; dupfs umount \"$place\"; fi; done";
        let mut command = Command::new("unshare");
        // Other mounts of this machine are not among its processes.
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--propagation", "private"]);
        command.args(["sh", "-c", script, "sh"]).arg(self.scratch.path());
        command.arg(substituted(line)).arg(substituted(first)).arg(COVERED);
        for (name, _) in Dupfs::new(self.scratch.path()).command("ls").get_envs() {
            command.env_remove(name);
        }
        // The documents use the options of new versions of duplicity.
        let duplicity = environments().join("duplicity-3.2.1/bin");
        let path = format!("/srv/bin:{}:{}", duplicity.display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("HOME", "/srv/user").env("PASSPHRASE", "secret").stdin(Stdio::null());
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.bucket.address));
        command.env("SFTP_URL", self.server.url("web")).env("DUPFS_SSH_OPTIONS", self.server.ssh_options().join(" "));
        let output = exec::output(&mut command);
        match output.status.success() {
            true => Ok(()),
            false => {
                let (out, err) = (exec::tail(&output.stdout), exec::tail(&output.stderr));
                Err(format!("{line}: {:?}: {out}{err}", output.status.code()))
            }
        }
    }
}

#[test]
fn each_command_in_the_documents_works_as_it_is_written() {
    require_fuse();
    let machine = Machine::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    // Its procedures are run by another test.
    paths.retain(|path| path.extension().is_some_and(|own| own == "md") && !path.ends_with("RUNBOOK.md"));
    paths.push(root.join("README.md"));
    paths.sort();
    let (mut done, mut failed, mut left_out) = (BTreeSet::new(), Vec::new(), Vec::new());
    for path in paths {
        for line in commands(&fs::read_to_string(&path).unwrap()) {
            if let Some(reason) = NOT_RUN.iter().position(|(begin, _)| line.starts_with(begin)) {
                left_out.push(reason);
                continue;
            }
            if !done.insert(line.clone()) {
                continue;
            }
            if let Err(error) = machine.run(&line) {
                failed.push(format!("{}: {error}", path.file_name().unwrap().display()));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), done.len(), failed.join("\n"));
    assert!(done.len() >= 85, "{}", done.len());
    for line in WHOLE {
        assert!(done.contains(line), "no document has the command {line}");
    }
    for (number, (begin, _)) in NOT_RUN.iter().enumerate() {
        assert!(left_out.contains(&number), "no document has the command {begin}");
    }
}

#[test]
fn a_command_in_a_document_that_fails_is_found() {
    let text = "Run `dupfs ls`, or `dupfs sets\nURL`:\n\n    dupfs ls URL no/such/path        prints ... it\n\n```\ndupfs sets URL\n\
                A_B=c systemctl start x\nsite /mnt fuse.dupfs\nmysql < x\nexport A=...\n\
                dupfs restore [OPTIONS] <URL> [PATH]... <DEST>  write it\n```\n";
    let expected = [
        "dupfs ls URL no/such/path",
        "dupfs sets URL",
        "systemctl start x",
        "mysql < x",
        "dupfs restore URL DEST",
        "dupfs sets URL",
    ];
    assert_eq!(commands(text), expected);
    let machine = Machine::new();
    let error = machine.run("dupfs ls URL no/such/path").unwrap_err();
    assert!(error.contains("Some(3)") && error.contains("no/such"), "{error}");
    machine.run("dupfs sets URL").unwrap();
}
