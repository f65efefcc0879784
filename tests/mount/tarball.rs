//! The tar archives: built by `scripts/package` against glibc 2.28, for x86_64 installed and used in a Debian 11 that also
//! boots, and for aarch64 run under an emulator of the processor.
//!
//! Needs root, debootstrap, systemd-nspawn, qemu-user, PyPI and the mirrors of Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::debian::{boot_and_check, copy_samples, new_system, prepared_system, run_in, run_with_packages};
use crate::support::Scratch;
use crate::support::exec::{self, Dupfs, output, run};
use crate::support::mount::{is_mounted, release, require_fuse};
use crate::support::tree::{self, Rules, Tree};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const ARM_TARGET: &str = "aarch64-unknown-linux-gnu";

/// The directory in which cargo builds.
fn target() -> PathBuf {
    std::path::absolute(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| Path::new(ROOT).join("target").into()))
        .unwrap()
}

/// The tar archive for this machine. Built once in a test run, as `scripts/package tarball` builds it.
fn native_tarball() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        run(Command::new(Path::new(ROOT).join("scripts/package")).arg("tarball"));
        archive(&target().join("packages"), "x86_64")
    })
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn two_builds_in_different_directories_give_the_same_packages() {
    // It also installs zig, and is the first build.
    native_tarball();
    let scratch = Scratch::new();
    for kind in ["deb", "tarball"] {
        let mut command = Command::new(Path::new(ROOT).join("scripts/package"));
        command.args([kind, "--check-reproducible", "--output"]).arg(scratch.path());
        let text = String::from_utf8(run(&mut command)).unwrap();
        // The package and that of its symbols.
        assert_eq!(text.matches(": two builds, the same bytes, SHA-256 ").count(), 2, "{kind}: {text}");
    }
}

/// The archive for the architecture in a directory of packages.
fn archive(directory: &Path, architecture: &str) -> PathBuf {
    directory.join(format!("dupfs-{}-{architecture}-linux.tar.gz", env!("CARGO_PKG_VERSION")))
}

/// Unpacks an archive below `scratch`. Returns its directory.
fn unpacked(archive: &Path, scratch: &Scratch) -> PathBuf {
    run(Command::new("tar").arg("-C").arg(scratch.path()).arg("-xzf").arg(archive));
    let name = archive.file_name().unwrap().to_str().unwrap();
    scratch.path().join(name.strip_suffix(".tar.gz").unwrap())
}

/// The highest version of glibc of which `program` needs a symbol, by the tool `readelf`.
fn needed_glibc(program: &Path) -> (u32, u32) {
    let symbols = run(Command::new("readelf").args(["--wide", "--dyn-syms"]).arg(program));
    let symbols = String::from_utf8(symbols).unwrap();
    let versions = symbols.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_')));
    let number = |version: &str| {
        let (major, minor) = version.strip_prefix("GLIBC_")?.split_once('.')?;
        let minor = minor.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    versions.filter_map(number).max().expect("the program uses glibc")
}

/// Installs the archive, and uses the program by each way that needs no booted system.
const SESSION: &str = r#"
set -eux
exec 2>&1
export PATH=/usr/local/bin:$PATH
ldd --version | head -n 1
cd /root
tar -xzf /packages/dupfs-*-x86_64-linux.tar.gz
(cd dupfs-*-linux && ./install.sh)
sh /configure
dump=var/backups/mysql/shop.sql
dupfs sets site | grep '4 snapshots'
dupfs cat --time 20260120T021500Z site $dump >/one
test "$(sha256sum </one)" = "$(sha256sum </packages/samples/shop.sql)"
dupfs restore --time 20260120T021500Z site /restored
cmp /one /restored/$dump
dupfs mount site /mnt/site
cmp /one /mnt/site/snapshots/20260120T021500Z/$dump
dupfs umount /mnt/site
echo 'site /mnt/site fuse.dupfs noauto,nofail 0 0' >>/etc/fstab
mount /mnt/site
cmp /one /mnt/site/snapshots/20260120T021500Z/$dump
umount /mnt/site
mount -t dupfs site /mnt/site
umount /mnt/site
test -s /usr/local/share/man/man1/dupfs.1.gz
# The next boot: the unit, and a service whose script mounts in the foreground.
mkdir -p /mnt/other
cat >/etc/systemd/system/script.service <<EOF
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c '/usr/local/bin/dupfs mount -f site /mnt/other & until mountpoint -q /mnt/other; do sleep 0.1; done; systemd-notify --ready --status=script; wait'
EOF
systemctl enable dupfs@site.service
echo used
"#;

/// Uses the units of the booted system. Its systemd has version 247, which does not name the process that it started.
const CHECK: &str = r#"
set -eux
systemctl --version | head -n 1
value() { systemctl show -p "$1" --value "$2"; }
right() { test "$(sha256sum <"$1/snapshots/20260120T021500Z/var/backups/mysql/shop.sql")" = "$(sha256sum </packages/samples/shop.sql)"; }
systemctl is-active dupfs@site
case $(value StatusText dupfs@site) in '4 snapshots, newest '*) ;; *) exit 1 ;; esac
right /mnt/site
systemctl reload dupfs@site
systemctl stop dupfs@site
! mountpoint -q /mnt/site
systemctl start script
right /mnt/other
test "$(value StatusText script)" = script
test "$(cat /proc/"$(value MainPID script)"/comm)" = sh
systemctl start dupfs-verify@site dupfs-index@site
journalctl -o cat -u dupfs-verify@site | grep 'sound (a sample of 5%'
echo checked
"#;

#[test]
#[ignore = "slow: scripts/test --all"]
fn the_tarball_needs_glibc_2_28_and_works_on_debian_11() {
    require_fuse();
    let scratch = Scratch::new();
    let archive = native_tarball();
    let program = unpacked(archive, &scratch).join("bin/dupfs");
    assert!(needed_glibc(&program) <= (2, 28), "{:?}", needed_glibc(&program));
    let packages = scratch.dir("packages");
    fs::copy(archive, packages.join(archive.file_name().unwrap())).unwrap();
    let samples = copy_samples(&packages);
    let dump = cat_dump(&sample(&scratch), &samples.join("backup"));
    fs::write(samples.join("shop.sql"), dump).unwrap();
    let system = new_system(&scratch, "bullseye");
    let used = run_with_packages(&system, &packages, SESSION);
    let text = String::from_utf8_lossy(&used.stdout).into_owned();
    assert!(used.status.success() && text.ends_with("\nused\n"), "{}\n{text}", used.status);
    boot_and_check(&system, "bullseye", &packages, CHECK);
}

/// The program under test with the keys of the sample.
fn sample(scratch: &Scratch) -> Dupfs {
    let samples = Path::new(ROOT).join("samples");
    let dupfs = Dupfs::new(&scratch.dir("home")).secret_key(&samples.join("demo-key.secret.asc"));
    dupfs.option(&format!("--passphrase-file={}", samples.join("demo-passphrase").display()))
}

/// The dump in the sample before the last night.
fn cat_dump(dupfs: &Dupfs, backup: &Path) -> Vec<u8> {
    dupfs.run("cat", &["--time", "20260120T021500Z", backup.to_str().unwrap(), "var/backups/mysql/shop.sql"])
}

/// Installs a compiler of Rust and its standard library for the other architecture, from the archive of Debian.
const INSTALL_TOOLCHAIN: &str = "
set -eu
exec 2>&1
dpkg --add-architecture arm64
# A mirror may be older than its Release file permits.
apt-get -o Acquire::Check-Valid-Until=false update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends rustc cargo libstd-rust-dev:arm64 \\
    build-essential python3 python3-pip qemu-user binutils-aarch64-linux-gnu libc6-arm64-cross libgcc-s1-arm64-cross
apt-get clean
";

/// The archive for aarch64, built by `scripts/package`: by the toolchain of this machine if it has the standard library of the
/// target or can add it, else in a Debian testing, whose archive has both.
fn arm_tarball(scratch: &Scratch) -> PathBuf {
    // It also installs zig, which both need.
    native_tarball();
    let packages = scratch.dir("arm");
    let libraries = run(Command::new("rustc").args(["--print", "target-libdir", "--target", ARM_TARGET]));
    let is_present = Path::new(String::from_utf8(libraries).unwrap().trim()).is_dir();
    let add = || Command::new("rustup").args(["target", "add", ARM_TARGET]).output();
    if is_present || add().is_ok_and(|output| output.status.success()) {
        let mut command = Command::new(Path::new(ROOT).join("scripts/package"));
        run(command.args(["tarball", "--arch", "aarch64", "--output"]).arg(&packages));
        return archive(&packages, "aarch64");
    }
    run(Command::new("cargo").args(["fetch", "--locked"]).current_dir(ROOT));
    let home = std::env::var_os("CARGO_HOME")
        .map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"), PathBuf::from);
    let system = prepared_system(scratch, "testing-rust", "testing", INSTALL_TOOLCHAIN);
    let script = "set -eu\nexec 2>&1\ncd /src\nexport HOME=/root CARGO_HOME=/cargo CARGO_NET_OFFLINE=true CARGO_TARGET_DIR=/target\n\
                  export SOURCE_DATE_EPOCH=1769300000\nscripts/package tarball --arch aarch64 --output /packages\n";
    let binds = [
        (Path::new(ROOT), "/src"),
        (&*home.join("registry"), "/cargo/registry"),
        (&*target(), "/target"),
        (&*packages, "/packages"),
    ];
    let built = run_in(&system, &binds, script);
    assert!(built.status.success(), "{}", exec::tail(&built.stdout));
    archive(&packages, "aarch64")
}

/// A command of the program for aarch64, with the keys of the sample.
fn emulated(program: &Path, scratch: &Scratch, command: &str) -> Command {
    let mut emulated = Command::new("qemu-aarch64");
    emulated.args(["-L", "/usr/aarch64-linux-gnu"]).arg(program);
    let own = sample(scratch).command(command);
    emulated.args(own.get_args());
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => emulated.env(name, value),
            None => emulated.env_remove(name),
        };
    }
    emulated
}

/// A process that is ended, and its mount point, which is unmounted.
struct Emulated<'a>(Child, &'a Path);

impl Drop for Emulated<'_> {
    fn drop(&mut self) {
        release(self.1);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn the_program_for_aarch64_reads_the_sample_under_an_emulator() {
    require_fuse();
    let scratch = Scratch::new();
    let archive = arm_tarball(&scratch);
    let program = unpacked(&archive, &scratch).join("bin/dupfs");
    let header = run(Command::new("readelf").arg("--file-header").arg(&program));
    assert!(String::from_utf8(header).unwrap().contains("AArch64"));
    assert!(needed_glibc(&program) <= (2, 28), "{:?}", needed_glibc(&program));
    let backup = Path::new(ROOT).join("samples/backup");
    let native = sample(&scratch);
    let same = |command: &str, operands: &[&str]| {
        let expected = native.run(command, operands);
        let found = run(emulated(&program, &scratch, command).args(operands));
        assert!(!expected.is_empty() && found == expected, "{command}: {}", exec::tail(&found));
    };
    let url = backup.to_str().unwrap();
    let version = |program: &mut Command| run(program.arg("--version"));
    let own = version(&mut Command::new(env!("CARGO_BIN_EXE_dupfs")));
    assert_eq!(version(Command::new("qemu-aarch64").args(["-L", "/usr/aarch64-linux-gnu"]).arg(&program)), own);
    same("sets", &[url]);
    same("ls", &["-lR", "--no-index", url]);
    same("cat", &["--time", "20260120T021500Z", url, "var/backups/mysql/shop.sql"]);
    let [expected, found] = ["native", "emulated"].map(|name| scratch.path().join(name));
    native.run("restore", &[url, expected.to_str().unwrap()]);
    run(emulated(&program, &scratch, "restore").arg(url).arg(&found));
    let same_trees = |what: &str, found: &Path| {
        tree::assert_same(what, &Tree::walk(&expected), &Tree::walk(found), &Rules::default());
    };
    same_trees("restore", &found);

    let mnt = scratch.dir("mnt");
    let mut mount = emulated(&program, &scratch, "mount");
    mount.args(["-f", url]).arg(&mnt).env("MALLOC_ARENA_MAX", "1").stdin(Stdio::null());
    let mut mount = Emulated(mount.spawn().unwrap(), &mnt);
    while !is_mounted(&mnt) {
        assert!(mount.0.try_wait().unwrap().is_none(), "the mount has ended");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    same_trees("mount", &mnt.join("latest/."));
    let read = fs::read(mnt.join("snapshots/20260120T021500Z/var/backups/mysql/shop.sql")).unwrap();
    assert!(read == cat_dump(&native, &backup));
    let unmounted = output(Command::new("umount").arg(&mnt));
    assert!(unmounted.status.success() && mount.0.wait().unwrap().success());

    if user_namespaces_have_interpreters() {
        let mut daemon = Command::new("unshare");
        daemon.args(["--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-euc", DAEMON, "sh"]);
        daemon.arg(&program).arg(url).arg(&mnt).args(native.command("mount").get_args().skip(1));
        daemon.env("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu").env_remove("MALLOC_ARENA_MAX");
        daemon.env("HOME", scratch.dir("daemon"));
        assert!(run(&mut daemon) == read);
    }
}

/// Mounts as a daemon, prints a dump, and unmounts. For the daemon the program starts itself again by a system call that the
/// emulator leaves to the kernel, which must know the emulator as the interpreter of programs for aarch64.
const DAEMON: &str = r#"
program=$1 url=$2 mnt=$3
shift 3
interpreters=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc binfmt_misc $interpreters
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf %s ":aarch64:M::$magic:$mask:/usr/bin/qemu-aarch64:" >$interpreters/register
"$program" mount "$@" "$url" "$mnt"
cat "$mnt/snapshots/20260120T021500Z/var/backups/mysql/shop.sql"
"$program" umount "$mnt"
! mountpoint -q "$mnt"
"#;

/// True if the kernel has a list of interpreters for each user namespace, as since Linux 6.7: that of the machine is unchanged.
fn user_namespaces_have_interpreters() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let types = fs::read_to_string("/proc/filesystems").unwrap();
    let has = version >= (6, 7) && types.lines().any(|line| line.split_whitespace().last() == Some("binfmt_misc"));
    if !has {
        eprintln!("Linux {} has no binfmt_misc for each user namespace: the daemon is not tested", release.trim());
    }
    has
}
