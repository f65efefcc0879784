//! New systems of Debian, in directories: made by debootstrap once for all test runs, then entered or booted.
//!
//! Needs root, debootstrap, systemd-nspawn and the mirrors of Debian.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::support::Scratch;
use crate::support::exec::{output, run, tail};

/// The directory in which the tests keep what they have fetched.
pub fn test_dir() -> PathBuf {
    let fallback = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".dupfs-test");
    std::env::var_os("DUPFS_TEST_DIR").map_or_else(fallback, PathBuf::from)
}

/// A new system of the Debian release `release` below `scratch`.
pub fn new_system(scratch: &Scratch, release: &str) -> PathBuf {
    prepared_system(scratch, release, release, "")
}

/// A new system `name` of the Debian release `release`, in which the script `prepare` was run with access to the network.
pub fn prepared_system(scratch: &Scratch, name: &str, release: &str, prepare: &str) -> PathBuf {
    let archive = system_archive(name, release, prepare);
    let system = scratch.dir(name);
    run(Command::new("tar").arg("-C").arg(&system).arg("-xf").arg(&archive));
    system
}

/// The tar archive of such a system, which is made by the first test that needs it.
pub fn system_archive(name: &str, release: &str, prepare: &str) -> PathBuf {
    static MADE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let archive = test_dir().join(format!("debian-{name}.tar"));
    if !archive.exists() {
        let scratch = Scratch::new();
        let system = scratch.path().join(name);
        let mut command = Command::new("debootstrap");
        command.args(["--variant=minbase", "--include=ca-certificates,fuse3,mount,systemd", release]).arg(&system);
        run(command.arg("http://deb.debian.org/debian"));
        if !prepare.is_empty() {
            let prepared = run_in(&system, &[], prepare);
            assert!(prepared.status.success(), "{name}: {}", tail(&prepared.stdout));
        }
        let unfinished = archive.with_extension("unfinished");
        run(Command::new("tar").arg("-C").arg(&system).arg("-cf").arg(&unfinished).args(["--exclude=./proc/*", "."]));
        fs::rename(unfinished, &archive).unwrap();
    }
    archive
}

/// Runs a script in `system`, with the directories `binds` at the places in `system` that stand beside them.
pub fn run_in(system: &Path, binds: &[(&Path, &str)], script: &str) -> Output {
    fs::write(system.join("session"), script).unwrap();
    let prepare = "cd \"$1\"; shift; mount -t proc proc proc\n\
                   for device in null zero full random urandom fuse; do\n\
                   : >>dev/$device; mount --bind /dev/$device dev/$device; done\n\
                   while [ $# -gt 0 ]; do mkdir -p \".$2\"; mount --bind \"$1\" \".$2\"; shift 2; done\n\
                   exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh /session";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--propagation", "private", "sh", "-euc", prepare, "sh"]).arg(system);
    for (directory, place) in binds {
        command.arg(directory).arg(place);
    }
    output(&mut command)
}

/// The unit that runs the script `/check` at the end of the boot, and then powers off.
const CHECK_UNIT: &str = "[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/bin/sh /check >/check.log 2>&1'
ExecStopPost=systemctl --no-block poweroff
";

/// Boots `system` with the directory `packages` as `/packages`, runs the script `check` in it, and waits until it has powered off.
/// Fails with the output of the script unless its last line is `checked`. `name` distinguishes systems of one test.
pub fn boot_and_check(system: &Path, name: &str, packages: &Path, check: &str) {
    let units = system.join("etc/systemd/system");
    let wanted = units.join("graphical.target.wants");
    fs::create_dir_all(&wanted).unwrap();
    fs::write(units.join("check.service"), CHECK_UNIT).unwrap();
    symlink("../check.service", wanted.join("check.service")).unwrap();
    fs::write(system.join("check"), check).unwrap();
    // It is killed if it does not power off.
    let mut boot = Command::new("timeout");
    boot.args(["--kill-after=5", "300", "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"]);
    boot.args(["--private-network", "--capability=all", "--bind=/dev/fuse", "--bind=/dev/autofs"]);
    boot.arg(format!("--machine=dupfs-test-{}-{name}", std::process::id())).arg("--directory").arg(system);
    boot.arg(format!("--bind={}:/packages", packages.display()));
    // Newer versions of systemd know no other hierarchy.
    boot.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1").stdin(Stdio::null());
    let booted = output(&mut boot);
    let log = fs::read_to_string(system.join("check.log")).unwrap_or_default();
    assert!(log.ends_with("\nchecked\n"), "{name}: {}\n{log}\n{}", booted.status, tail(&booted.stdout));
}

/// The configuration of the repository `site`, with its key and passphrase.
pub const CONFIGURE: &str = r#"
set -eu
mkdir -p /etc/dupfs /mnt/site
cat >/etc/dupfs/config.toml <<EOF
[repository.site]
url = "/packages/samples/backup"
secret-key = "/etc/dupfs/key"
passphrase-file = "/etc/dupfs/passphrase"
EOF
install -m 600 /packages/samples/demo-key.secret.asc /etc/dupfs/key
install -m 600 /packages/samples/demo-passphrase /etc/dupfs/passphrase
"#;

/// Runs a script in `system`, with `packages` as `/packages` and the script [`CONFIGURE`] as `/configure`.
pub fn run_with_packages(system: &Path, packages: &Path, script: &str) -> Output {
    fs::write(system.join("configure"), CONFIGURE).unwrap();
    run_in(system, &[(packages, "/packages")], script)
}

/// Copies the samples into the directory of packages.
pub fn copy_samples(packages: &Path) -> PathBuf {
    let samples = packages.join("samples");
    run(Command::new("cp").arg("-r").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples")).arg(&samples));
    samples
}
