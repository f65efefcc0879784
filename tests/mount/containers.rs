//! The image of packaging/Containerfile, and the commands of docs/INSTALL.md for containers, by Podman as root.
//!
//! Needs root, podman, crun, debootstrap and the mirrors of Debian. The base images are made here, because no registry of images
//! is reached: a minimal Debian, and the same with the toolchain of this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::{new_system, system_archive};
use crate::support::Scratch;
use crate::support::exec::{self, Dupfs, output, run};
use crate::support::mount::require_fuse;
use crate::support::s3::{KEY_ID, S3Server, SECRET};
use crate::support::terminal::on_terminal;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The passphrase of the sample's key.
fn passphrase() -> String {
    fs::read_to_string(Path::new(ROOT).join("samples/demo-passphrase")).unwrap()
}

/// The commands in the section of docs/INSTALL.md on containers, each in one line.
fn commands() -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/INSTALL.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Containers\n")).unwrap().replace("\\\n", "");
    section.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect()
}

/// Podman with its storage below a directory of the test. Its containers use the network of the machine.
struct Podman {
    scratch: Scratch,
}

impl Podman {
    fn new() -> Self {
        let scratch = Scratch::new();
        for dir in ["srv/backups", "srv/restored", "srv/mnt", "etc/dupfs", "etc-work", "work", "storage", "run"] {
            scratch.dir(dir);
        }
        let place = |name: &str| scratch.path().join(name).display().to_string();
        let settings = format!(
            "[containers]\nnetns = \"host\"\n[engine]\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"file\"\nlock_type = \"file\"\ntmp_dir = \"{0}\"\nvolume_path = \"{1}/volumes\"\n",
            place("run"),
            place("storage")
        );
        fs::write(scratch.path().join("containers.conf"), settings).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n",
            place("run"),
            place("storage")
        );
        fs::write(scratch.path().join("storage.conf"), storage).unwrap();
        Self { scratch }
    }

    /// Runs a script in which `/srv` and `/etc/dupfs` are directories of the test, with its working directory in `directory`. The
    /// mounts and all processes of the script end with it.
    fn script(&self, directory: &Path, script: &str) -> Command {
        // crun refuses a machine with control groups of both versions; it uses those of the first one.
        let prepare = "mount -t overlay overlay -o lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc-work /etc\n\
                       mount --bind \"$1/srv\" /srv; mount --make-shared /srv\n\
                       ! [ -d /sys/fs/cgroup/unified ] || mount -t tmpfs tmpfs /sys/fs/cgroup/unified\n\
                       cd \"$2\"; exec sh -euxc \"$3\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-euc", prepare, "sh"]).arg(self.scratch.path()).arg(directory).arg(script);
        command.env("CONTAINERS_CONF", self.scratch.path().join("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.scratch.path().join("storage.conf"));
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command
    }

    fn succeeds(&self, directory: &Path, script: &str) -> String {
        let result = output(&mut self.script(directory, &format!("exec 2>&1\n{script}")));
        assert!(result.status.success(), "{script}: {}\n{}", result.status, exec::tail(&result.stdout));
        String::from_utf8_lossy(&result.stdout).into_owned()
    }

    /// Makes the two base images.
    fn make_base_images(&self) {
        let debian = system_archive("bookworm", "bookworm", "");
        let system = new_system(&self.scratch, "bookworm");
        let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]));
        let sysroot = PathBuf::from(String::from_utf8(sysroot).unwrap().trim());
        run(Command::new("cargo").args(["fetch", "--locked"]).current_dir(ROOT));
        let cargo_home = std::env::var_os("CARGO_HOME")
            .map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"), PathBuf::from);
        let copy = |from: &Path, to: &str| {
            let to = system.join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            run(Command::new("cp").args(["-r", "-T"]).arg(from).arg(to));
        };
        for part in ["bin", "lib"] {
            copy(&sysroot.join(part), &format!("usr/local/{part}"));
        }
        for part in ["cache", "index"] {
            copy(&cargo_home.join("registry").join(part), &format!("usr/local/cargo/registry/{part}"));
        }
        let script = format!(
            "podman import {} docker.io/library/debian:bookworm-slim\n\
             tar -C {} -cf - . | podman import --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' \
             --change 'ENV CARGO_HOME=/usr/local/cargo' --change 'ENV CARGO_NET_OFFLINE=true' - \
             docker.io/library/rust:1-slim-bookworm",
            debian.display(),
            system.display()
        );
        self.succeeds(self.scratch.path(), &script);
        fs::remove_dir_all(system).unwrap();
    }

    /// Makes the configuration and the backup that the document uses.
    fn make_backup(&self) {
        let samples = Path::new(ROOT).join("samples");
        let backup = self.scratch.path().join("srv/backups/site");
        run(Command::new("cp").args(["-r", "-T"]).arg(samples.join("backup")).arg(&backup));
        let config = "[repository.site]\nurl = \"/srv/backups/site\"\nsecret-key = \"/etc/dupfs/key.asc\"\n\
                      passphrase-file = \"/etc/dupfs/passphrase\"\n";
        let keys = self.scratch.dir("etc/dupfs");
        fs::write(keys.join("config.toml"), config).unwrap();
        for (name, directory, to) in [
            ("demo-key.secret.asc", "etc/dupfs", "key.asc"),
            ("demo-passphrase", "etc/dupfs", "passphrase"),
            ("demo-key.secret.asc", "work", "key.asc"),
        ] {
            let file = self.scratch.dir(directory).join(to);
            fs::copy(samples.join(name), &file).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn the_image_is_built_and_its_documented_commands_work() {
    require_fuse();
    let podman = Podman::new();
    podman.make_base_images();
    podman.make_backup();
    let work = podman.scratch.dir("work");
    let mut commands = commands();
    assert!(commands.len() >= 10, "{commands:?}");
    let build = commands.remove(0);
    assert!(build.starts_with("podman build "), "{build}");
    podman.succeeds(Path::new(ROOT), &build);

    // With a prompt, on a terminal.
    let server = S3Server::start();
    run(Command::new("cp")
        .args(["-r", "-T"])
        .arg(Path::new(ROOT).join("samples/backup"))
        .arg(server.bucket().join("prefix")));
    let url = format!("--s3-unencrypted-connection s3://{}/bucket/prefix", server.address);
    let prompted = commands.remove(0);
    assert!(prompted.contains(" -it ") && prompted.contains("s3://bucket/prefix"), "{prompted}");
    let listed = on_terminal(
        &podman.script(&work, &prompted.replace("s3://bucket/prefix", &url)),
        &[("): ", &format!("{}\n", passphrase().trim()))],
    );
    assert!(listed.code == 0 && listed.output.lines().any(|line| line == "srv"), "{}", listed.output);

    // All others in one session.
    let script: String = commands.iter().map(|command| command.clone() + "\n" + checks(command)).collect();
    let shown = podman.succeeds(&work, &script.replace("var/backups/shop.sql", "var/backups/mysql/shop.sql"));
    let dupfs = Dupfs::new(&podman.scratch.dir("home")).secret_key(&podman.scratch.path().join("etc/dupfs/key.asc"));
    let dupfs = dupfs.passphrase(passphrase().trim());
    let backup = podman.scratch.path().join("srv/backups/site");
    let dump = dupfs.run("cat", &[backup.to_str().unwrap(), "var/backups/mysql/shop.sql"]);
    assert!(shown.contains(&String::from_utf8(dump).unwrap()), "{}", exec::tail(shown.as_bytes()));
    // The listings of the mount in the container and of that on the host.
    assert_eq!(shown.lines().filter(|line| *line == "srv").count(), 2, "{}", exec::tail(shown.as_bytes()));
    assert!(podman.scratch.path().join("srv/restored/etc").is_dir());

    // The example for Kubernetes, which Podman runs too.
    let pod = Path::new(ROOT).join("packaging/examples/restore-pod.yaml");
    let script = format!(
        "podman kube play --network host {0}\n\
         until podman ps -a --format '{{{{.Names}}}} {{{{.Status}}}}' | grep 'dupfs-restore-dupfs Exited'; do sleep 0.2; done\n\
         podman logs dupfs-restore-dupfs\npodman kube down {0}\n",
        pod.display()
    );
    let shown = podman.succeeds(&work, &script);
    let restored = podman.scratch.path().join("storage/volumes/restored/_data/www/shop");
    assert!(restored.is_dir(), "{}", exec::tail(shown.as_bytes()));
}

/// The wait for a mount that follows its command, and the check that its end leaves nothing on the host.
fn checks(command: &str) -> &'static str {
    if command.contains("--name backup-host") {
        "until mountpoint -q /srv/mnt/site; do podman exec backup-host true; sleep 0.2; done\n"
    } else if command.contains("--name backup ") {
        "until podman exec backup mountpoint -q /mnt; do podman exec backup true; sleep 0.2; done\n"
    } else if command.ends_with("stop -t 60 backup-host") {
        "! mountpoint -q /srv/mnt/site\n"
    } else {
        ""
    }
}
