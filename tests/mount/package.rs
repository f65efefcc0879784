//! The Debian package: built, checked, installed, used, upgraded and removed in new systems.
//!
//! Needs root, debootstrap, lintian and the mirrors of Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Scratch;
use crate::support::exec::{output, run};
use crate::support::mount::require_fuse;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Packages the program under test. Returns the files of the package and of its symbols.
fn package(directory: &Path, version: &str) -> [PathBuf; 2] {
    let mut command = Command::new(Path::new(ROOT).join("scripts/package"));
    command.args(["deb", "--program", env!("CARGO_BIN_EXE_dupfs"), "--version", version]);
    run(command.arg("--output").arg(directory).env("SOURCE_DATE_EPOCH", "1769300000").env("CARGO_NET_OFFLINE", "true"));
    ["dupfs", "dupfs-dbgsym"].map(|name| {
        let mut files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let start = format!("{name}_{version}_");
        files.find(|file| file.file_name().unwrap().to_str().unwrap().starts_with(&start)).unwrap()
    })
}

/// A new system of a Debian release below `scratch`. Its packages are fetched once for all test runs.
fn new_system(scratch: &Scratch, release: &str) -> PathBuf {
    let directory =
        std::env::var_os("DUPFS_TEST_DIR").map_or_else(|| Path::new(ROOT).join(".dupfs-test"), PathBuf::from);
    let archive = directory.join(format!("debian-{release}.tar"));
    let system = scratch.path().join(release);
    if !archive.exists() {
        let mut command = Command::new("debootstrap");
        command.args(["--variant=minbase", "--include=ca-certificates,fuse3,mount,systemd", release]).arg(&system);
        run(command.arg("http://deb.debian.org/debian"));
        let unfinished = archive.with_extension("unfinished");
        run(Command::new("tar").arg("-C").arg(&system).arg("-cf").arg(&unfinished).args(["--exclude=./proc/*", "."]));
        fs::rename(unfinished, archive).unwrap();
        return system;
    }
    fs::create_dir(&system).unwrap();
    run(Command::new("tar").arg("-C").arg(&system).arg("-xf").arg(&archive));
    system
}

/// Installs an older version, upgrades it during a mount by fstab, mounts by the command line of the unit, and removes it.
const SESSION: &str = r#"
set -eux
exec 2>&1
find / -xdev -path /packages -prune -o -path /proc -prune -o -path '/var/*/apt' -prune -o -print | sort >/before
dpkg -i /packages/old/dupfs_*.deb
mkdir -p /etc/dupfs /mnt/site
cat >/etc/dupfs/config.toml <<EOF
[repository.site]
url = "/packages/samples/backup"
secret-key = "/etc/dupfs/key"
passphrase-file = "/etc/dupfs/passphrase"
EOF
install -m 600 /packages/samples/demo-key.secret.asc /etc/dupfs/key
install -m 600 /packages/samples/demo-passphrase /etc/dupfs/passphrase
cp /etc/fstab /fstab
echo 'site /mnt/site fuse.dupfs noauto,nofail 0 0' >>/etc/fstab
mount /mnt/site
cat /mnt/site/latest/var/backups/mysql/shop.sql >/one
dpkg -i /packages/new/dupfs_*.deb /packages/new/dupfs-dbgsym_*.deb
cat /mnt/site/latest/var/backups/mysql/shop.sql | cmp - /one
umount /mnt/site
test "$(dpkg-query -W -f '${Version}' dupfs)" = 9.9.9
systemd-analyze verify --man=no dupfs@site.service dupfs-verify@site.timer dupfs-index@site.timer
MOUNTPOINT=/mnt/site
command=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/dupfs@.service | sed 's|%i|site|; s|\${MOUNTPOINT}|/mnt/site|')
$command &
until mountpoint -q /mnt/site; do kill -0 $!; sleep 0.1; done
cmp /mnt/site/latest/var/backups/mysql/shop.sql /one
kill $!
wait $!
$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/dupfs-verify@.service | sed 's|%i|site|; s|%%|%|')
$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/dupfs-index@.service | sed 's|%i|site|')
test -e /usr/lib/debug/.build-id
dpkg -P dupfs-dbgsym dupfs
cp /fstab /etc/fstab
rm -r /etc/dupfs /mnt/site /root/.cache /one /fstab
find / -xdev -path /packages -prune -o -path /proc -prune -o -path '/var/*/apt' -prune -o -print | sort >/after
others='/before|/after|/var/(lib|log)/(dpkg|systemd)|/var/log/dupfs.log|/run|/dev|/tmp'
diff /before /after | grep -vE "^[<>] ($others)" | grep '^[<>]' || echo clean
"#;

#[test]
#[ignore = "slow: scripts/test --all"]
fn the_package_is_installed_used_upgraded_and_removed_on_debian_12_and_13() {
    require_fuse();
    let scratch = Scratch::new();
    let new = package(&scratch.dir("packages/new"), "9.9.9");
    let again = package(&scratch.dir("again"), "9.9.9");
    for (one, other) in new.iter().zip(&again) {
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "two builds of {one:?} differ");
    }
    package(&scratch.dir("packages/old"), "0.0.1");
    let lint = output(Command::new("lintian").args(["--allow-root", "--fail-on", "error"]).args(&new));
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    run(Command::new("cp").arg("-r").arg(Path::new(ROOT).join("samples")).arg(scratch.dir("packages").join("samples")));
    for release in ["bookworm", "trixie"] {
        let system = new_system(&scratch, release);
        fs::write(system.join("session"), SESSION).unwrap();
        let prepare = "cd \"$1\"; mkdir -p packages; mount --bind \"$2\" packages; mount -t proc proc proc\n\
                       for device in null zero full random urandom fuse; do\n\
                       : >>dev/$device; mount --bind /dev/$device dev/$device; done\n\
                       exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh /session";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--propagation", "private", "sh", "-euc", prepare, "sh"]);
        let result = output(command.arg(&system).arg(scratch.dir("packages")));
        let text = String::from_utf8_lossy(&result.stdout).into_owned();
        assert!(result.status.success() && text.ends_with("\nclean\n"), "{release}: {}\n{text}", result.status);
    }
}
