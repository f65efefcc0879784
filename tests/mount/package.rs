//! The Debian package: built, checked, installed, used, upgraded and removed in new systems, which are also booted.
//!
//! Needs root, debootstrap, lintian, systemd-nspawn and the mirrors of Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::{boot_and_check, copy_samples, new_system, run_with_packages};
use crate::support::Scratch;
use crate::support::exec::{Dupfs, output, run};
use crate::support::mount::require_fuse;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The releases of Debian.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];

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

/// Installs an older version, upgrades it during a mount by fstab, mounts by the command line of the unit, and removes it.
const SESSION: &str = r#"
set -eux
exec 2>&1
find / -xdev -path /packages -prune -o -path /proc -prune -o -path '/var/*/apt' -prune -o -print | sort >/before
dpkg -i /packages/old/dupfs_*.deb
EXAMPLE
dupfs sets nosuch 2>&1 | grep 'no repository of /etc/dupfs/config.toml .* the repositories are: site'
sh /configure
cp /etc/fstab /fstab
echo 'site /mnt/site fuse.dupfs noauto,nofail 0 0' >>/etc/fstab
mount /mnt/site
cat /mnt/site/latest/var/backups/mysql/shop.sql >/one
cd /packages/new
INSTALL
cd /
dpkg -i /packages/new/dupfs-dbgsym_*.deb
for file in share/man/man1/dupfs.1.gz share/man/man1/dupfs-mount.1.gz share/man/man8/mount.dupfs.8.gz \
    share/bash-completion/completions/dupfs share/zsh/vendor-completions/_dupfs share/fish/vendor_completions.d/dupfs.fish \
    lib/systemd/system/dupfs@.service lib/systemd/user/dupfs@.service share/doc/dupfs/examples/fstab \
    share/doc/dupfs/copyright share/doc/dupfs/third-party-licences.txt.gz share/doc/dupfs/sbom.cdx.json sbin/mount.fuse.dupfs
do dpkg -S "$(realpath -s /usr/$file)" && test -s /usr/$file; done
grep -c '"bom-ref"' /usr/share/doc/dupfs/sbom.cdx.json
dpkg-query -W -f '${Recommends}' dupfs | grep fuse3
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
yes | REMOVE
dpkg -P dupfs-dbgsym dupfs
cp /fstab /etc/fstab
rm -r /etc/dupfs /mnt/site /root/.cache /one /fstab
find / -xdev -path /packages -prune -o -path /proc -prune -o -path '/var/*/apt' -prune -o -print | sort >/after
others='/before|/after|/var/(lib|log)/(dpkg|systemd)|/var/cache/debconf|/var/log/dupfs.log|/run|/dev|/tmp'
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
    copy_samples(&scratch.dir("packages"));
    for release in RELEASES {
        let system = new_system(&scratch, release);
        let [install, example, remove] =
            ["apt-get install ./", "install -D ", "apt-get remove "].map(documented_command);
        let session = SESSION.replace("INSTALL", &install).replace("EXAMPLE", &example).replace("REMOVE", &remove);
        let result = run_with_packages(&system, &scratch.dir("packages"), &session);
        let text = String::from_utf8_lossy(&result.stdout).into_owned();
        assert!(result.status.success() && text.ends_with("\nclean\n"), "{release}: {}\n{text}", result.status);
    }
}

/// Installs the package, and prepares the next boot: mounts by fstab, and units.
const PREPARE_BOOT: &str = r#"
set -eux
exec 2>&1
dpkg -i /packages/new/dupfs_*.deb
sh /configure
mkdir -p /mnt/boot /mnt/auto /mnt/broken
printf '[repository.sealed]\nurl = "/packages/samples/backup"\n' >>/etc/dupfs/config.toml
cat >>/etc/fstab <<EOF
site /mnt/boot fuse.dupfs nofail,x-systemd.mount-timeout=15min 0 0
site /mnt/auto fuse.dupfs noauto,_netdev,x-systemd.automount,x-systemd.idle-timeout=10min,allow_other 0 0
s3://bucket/prefix /mnt/broken fuse.dupfs nofail,_netdev,s3_endpoint_url=http://127.0.0.1:9 0 0
EOF
mkdir -p /etc/systemd/system/dupfs@.service.d /etc/systemd/system/dupfs@sealed.service.d
printf '[Service]\nRestartSec=1\n' >/etc/systemd/system/dupfs@.service.d/test.conf
cat >/etc/systemd/system/dupfs@sealed.service.d/keys.conf <<EOF
[Service]
LoadCredential=dupfs.secret-key:/etc/dupfs/key
LoadCredential=dupfs.passphrase:/etc/dupfs/passphrase
EOF
systemctl enable dupfs@site.service dupfs-verify@site.timer dupfs-index@site.timer
useradd -m joe
mkdir -p /home/joe/.config/dupfs /home/joe/site
sed 's|/etc/dupfs|/home/joe|' /etc/dupfs/config.toml >/home/joe/.config/dupfs/config.toml
cp /etc/dupfs/key /etc/dupfs/passphrase /home/joe
chown -R joe: /home/joe
"#;

/// The one command of docs/INSTALL.md that starts with `begin`, in its first occurrence.
fn documented_command(begin: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/INSTALL.md")).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix("    sudo ").filter(|line| line.starts_with(begin)));
    found.unwrap_or_else(|| panic!("docs/INSTALL.md has no {begin}")).to_owned()
}

/// The commands in the documents that need a running systemd: those of the blocks of code, and within sentences.
fn documented_commands() -> String {
    let mut commands = Vec::new();
    for entry in fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(path).unwrap();
            let blocks = text.lines().filter_map(|line| line.strip_prefix("    "));
            let spans = text.split('`').skip(1).step_by(2);
            commands.extend(blocks.chain(spans).filter_map(|command| {
                let command = command.strip_prefix("sudo ").unwrap_or(command);
                let is_of_systemd = command.starts_with("systemctl ") || command.starts_with("journalctl ");
                // An editor and the instance of a user are tried by the script, and the kernel's log is not there.
                let is_run = !command.contains(" edit") && !command.contains("--user") && !command.contains("-k ");
                (is_of_systemd && is_run).then(|| command.to_owned())
            }));
        }
    }
    assert!(commands.len() >= 8 && commands.iter().any(|command| command.contains("enable --now")), "{commands:?}");
    // The unit is enabled before it is reloaded.
    commands.sort_by_key(|command| !command.contains("enable --now"));
    commands.join("\n") + "\n"
}

/// The drop-in of `systemctl edit dupfs@site` in docs/INSTALL.md, with the line of docs/CONFIGURATION.md.
fn documented_drop_in() -> String {
    let read = |name: &str| fs::read_to_string(Path::new(ROOT).join("docs").join(name)).unwrap();
    let (install, configuration) = (read("INSTALL.md"), read("CONFIGURATION.md"));
    assert!(
        [&install, &configuration]
            .into_iter()
            .all(|text| text.contains("`systemctl edit dupfs@site`")
                || text.contains("`sudo systemctl edit dupfs@site`"))
    );
    let line = configuration.split('`').find(|span| span.starts_with("Environment=DUPFS_")).unwrap();
    let block = install.split("```\n").find(|block| block.starts_with("[Service]\n")).unwrap();
    format!("{block}{line}\n")
}

/// Uses the mounts and units of a system that has booted.
const CHECK: &str = r#"
set -eux
dump=latest/var/backups/mysql/shop.sql
until mountpoint -q /mnt/boot; do sleep 0.1; done
sum=$(sha256sum </packages/samples/shop.sql)
right() { test "$(sha256sum <"$1/$dump")" = "$sum"; }
value() { systemctl show -p "$1" --value "$2"; }
right /mnt/boot
# The enabled unit, which is ready once it answers.
systemctl is-active dupfs@site
case $(value StatusText dupfs@site) in '4 snapshots, newest '*) ;; *) exit 1 ;; esac
right /mnt/site
systemctl reload dupfs@site
kill -9 "$(value MainPID dupfs@site)"
until [ "$(value NRestarts dupfs@site)" = 1 ] && systemctl -q is-active dupfs@site; do sleep 0.2; done
right /mnt/site
systemctl stop dupfs@site
! mountpoint -q /mnt/site
# The commands as the documents have them, also those within sentences.
sh -eux /documented
mountpoint -q /mnt/site
systemctl disable --now dupfs@site
# The drop-in of the documents, by an editor that writes it. systemctl starts one on a terminal only.
printf '#!/bin/sh\nfor file; do :; done\ncat /drop-in >"$file"\n' >/editor
chmod +x /editor
cp /etc/dupfs/key /etc/dupfs/key.asc
printf '[default]\naws_access_key_id = a\naws_secret_access_key = b\n' >/etc/dupfs/aws-credentials
SYSTEMD_EDITOR=/editor script -qec 'systemctl edit dupfs@site' /dev/null
systemctl restart dupfs@site
right /srv/backup
environment=$(tr '\0' '\n' <"/proc/$(value MainPID dupfs@site)/environ")
echo "$environment" | grep -x DUPFS_REFRESH=60
grep aws_access_key_id "$(echo "$environment" | sed -n 's/^AWS_SHARED_CREDENTIALS_FILE=//p')"
systemctl stop dupfs@site
rm -r /etc/systemd/system/dupfs@site.service.d
# A slip in the name of a credential, and a user who may not mount by this unit.
mkdir /etc/systemd/system/dupfs@site.service.d
printf '[Service]\nLoadCredential=dupfs.passphrases:/etc/dupfs/passphrase\n' >/etc/systemd/system/dupfs@site.service.d/slip.conf
systemctl daemon-reload
systemctl start dupfs@site
journalctl -o cat -u dupfs@site | grep 'the credential dupfs.passphrases is ignored: did you mean dupfs.passphrase?'
systemctl stop dupfs@site
sed 's|/etc/dupfs|/home/joe|' -i /etc/dupfs/config.toml
chown joe /mnt/site
printf '[Service]\nUser=joe\n' >/etc/systemd/system/dupfs@site.service.d/slip.conf
systemctl daemon-reload
! systemctl start dupfs@site
journalctl -o cat -u dupfs@site | grep 'NoNewPrivileges= forbids fusermount3 to become root'
sed 's|/home/joe|/etc/dupfs|' -i /etc/dupfs/config.toml
rm -r /etc/systemd/system/dupfs@site.service.d
systemctl daemon-reload
systemctl reset-failed dupfs@site
# Keys as credentials.
systemctl start dupfs@sealed
right /mnt/sealed
systemctl stop dupfs@sealed
# On demand.
! findmnt -t fuse.dupfs /mnt/auto
right /mnt/auto
findmnt -t fuse.dupfs /mnt/auto
systemctl stop mnt-auto.mount
# A store that does not answer: the boot has gone on, and the journal has the reason.
systemctl is-failed mnt-broken.mount
journalctl -o cat -u mnt-broken.mount | grep 'error: s3://bucket/prefix: the host refuses the connection'
# The jobs of the timers, with all of their switches.
systemctl is-active dupfs-verify@site.timer dupfs-index@site.timer
systemctl start dupfs-verify@site dupfs-index@site
journalctl -o cat -u dupfs-verify@site | grep 'sound (a sample of 5%'
journalctl -o cat -u dupfs-index@site | grep '4 snapshots'
# The index after a backup, as the documents advise.
indexed() { journalctl -o cat -u dupfs-index@site | grep -c '4 snapshots'; }
before=$(indexed)
printf '[Unit]\nOnSuccess=dupfs-index@site.service\n[Service]\nType=oneshot\nExecStart=/bin/true\n' >/etc/systemd/system/nightly.service
systemctl daemon-reload
systemctl start nightly
until [ "$(indexed)" -gt "$before" ]; do sleep 0.2; done
# The example of a mount on demand.
cp /usr/share/doc/dupfs/examples/mnt-backup.* /etc/systemd/system
systemctl daemon-reload
systemctl start mnt-backup.automount
! findmnt -t fuse.dupfs /mnt/backup
right /mnt/backup
systemctl stop mnt-backup.automount mnt-backup.mount
! systemctl start dupfs-verify@nosuch
journalctl -t dupfs -o cat | grep 'error: nosuch: no repository'
journalctl -p err -o cat -u dupfs-verify@nosuch | grep 'error: nosuch: no repository of /etc/dupfs/config.toml'
until journalctl -p crit -o cat | grep 'dupfs-verify@nosuch.service failed: see journalctl'; do sleep 0.1; done
# The unit for one user.
install -d -m 700 -o joe /run/user/1000
as_joe() {
    setpriv --reuid joe --regid joe --clear-groups env -i HOME=/home/joe PATH=/usr/bin:/bin XDG_RUNTIME_DIR=/run/user/1000 "$@"
}
systemd-run --unit joe --uid joe --property Delegate=yes --setenv HOME=/home/joe --setenv XDG_RUNTIME_DIR=/run/user/1000 \
    /lib/systemd/systemd --user
until as_joe systemctl --user is-system-running 2>/dev/null | grep -q running; do sleep 0.1; done
as_joe systemctl --user enable --now dupfs@site
as_joe sha256sum /home/joe/site/$dump | grep "${sum%% *}"
as_joe systemctl --user stop dupfs@site
! mountpoint -q /home/joe/site
systemctl stop joe
echo checked
"#;

#[test]
#[ignore = "slow: scripts/test --all"]
fn fstab_and_units_work_when_debian_12_and_13_have_booted() {
    require_fuse();
    let scratch = Scratch::new();
    package(&scratch.dir("packages/new"), "9.9.9");
    let samples = copy_samples(&scratch.dir("packages"));
    let dupfs = Dupfs::new(&scratch.dir("home")).secret_key(&samples.join("demo-key.secret.asc"));
    let dupfs = dupfs.option(&format!("--passphrase-file={}", samples.join("demo-passphrase").display()));
    let backup = samples.join("backup");
    fs::write(samples.join("shop.sql"), dupfs.run("cat", &[backup.to_str().unwrap(), "var/backups/mysql/shop.sql"]))
        .unwrap();
    for release in RELEASES {
        let system = new_system(&scratch, release);
        let prepared = run_with_packages(&system, &scratch.dir("packages"), PREPARE_BOOT);
        assert!(prepared.status.success(), "{release}: {}", String::from_utf8_lossy(&prepared.stdout));
        fs::write(system.join("documented"), documented_commands()).unwrap();
        fs::write(system.join("drop-in"), documented_drop_in()).unwrap();
        boot_and_check(&system, release, &scratch.dir("packages"), CHECK);
    }
}
