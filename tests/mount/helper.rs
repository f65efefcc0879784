//! The program as the helper of mount(8): real mount, umount and findmnt, lines of an fstab, and the exit codes. Each test
//! runs in a mount namespace where the helpers are links in /usr/sbin to the program, and with the environment of a boot.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::Scratch;
use crate::support::exec::output;
use crate::support::mount::require_fuse;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The start of each script: the links, an empty home of root, and a directory with the sample, its keys and mount points, all of
/// which end with the script. `fstab LINE...` installs the lines.
const PRELUDE: &str = r#"
exec 2>&1
umount -alt fuse.dupfs || true
machine=$PWD
mount -t tmpfs tmpfs .
cd "$machine"
chmod 755 .
mkdir -p sbin bin home mnt backup open
cp -P /usr/sbin/mount.fuse3 /usr/sbin/mount.fuse sbin
ln -s /usr/local/bin/dupfs sbin/mount.dupfs
mount --bind bin /usr/local/bin
: >/usr/local/bin/dupfs
mount --bind "$DUPFS" /usr/local/bin/dupfs
mount --bind sbin /usr/sbin
mount --bind home /root
mount --bind "$SAMPLES/backup" backup
install -m 600 "$SAMPLES/demo-key.secret.asc" key
install -m 600 "$SAMPLES/demo-passphrase" passphrase
url=file://$machine/backup
keys=secret_key=$machine/key,passphrase_file=$machine/passphrase
trap 'umount -alt fuse.dupfs' EXIT
fstab() {
    printf '%s\n' "$@" >fstab
    mount --bind fstab /etc/fstab
}
"#;

/// Runs `script` with bash, without any variable but PATH.
fn in_namespace(script: &str) -> Output {
    require_fuse();
    let scratch = Scratch::new();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-euc"]).arg(format!("{PRELUDE}{script}"));
    command.current_dir(scratch.path()).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    command.env("DUPFS", env!("CARGO_BIN_EXE_dupfs")).env("SAMPLES", Path::new(ROOT).join("samples"));
    output(&mut command)
}

fn succeeds(script: &str) -> String {
    let output = in_namespace(script);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}\n{text}", output.status);
    text
}

#[test]
fn mount_8_mounts_by_each_name_of_the_type() {
    let text = succeeds(
        r#"
        shown() { ls mnt/latest/var/backups/mysql; findmnt -no FSTYPE,OPTIONS,SOURCE mnt; }
        mount -t dupfs "$url" "$machine/mnt" -o "defaults,_netdev,nofail,x-systemd.automount,noexec,$keys"
        shown
        umount mnt
        # Without a link of that name mount(8) calls mount.fuse, which calls the program.
        mount -t fuse.dupfs "$url" "$machine/mnt" -o "ro,allow_other,$keys"
        shown
        umount mnt
        mount -t fuse "dupfs#$url" "$machine/mnt" -o "$keys"
        shown
        umount mnt
        ln -s /usr/local/bin/dupfs sbin/mount.fuse.dupfs
        mount -t fuse.dupfs "$url" "$machine/mnt" -o "$keys" -s -o of_another_system
        shown
        pid=$(dupfs status --json mnt | grep -o '"pid": *[0-9]*' | head -n 1)
        tr '\0' ' ' <"/proc/${pid##*[: ]}/cmdline"
        printf '\n'
        umount mnt
        # The index is in the home directory of the user database: a boot has no HOME.
        ls home/.cache
        echo "mounts: $(findmnt -rn -t fuse.dupfs | wc -l)"
        "#,
    );
    let listed: Vec<&str> = text.lines().filter(|line| *line == "shop.sql").collect();
    assert_eq!(listed.len(), 4, "{text}");
    let table: Vec<&str> = text.lines().filter(|line| line.starts_with("fuse.dupfs ")).collect();
    assert_eq!(table.len(), 4, "{text}");
    for line in &table {
        assert!(line.contains("ro,nosuid,nodev") && line.contains("dupfs:file:///"), "{line}");
        assert!(!line.contains("key") && !line.contains("passphrase"), "{line}");
    }
    assert!(table[0].contains("noexec") && !table[1].contains("noexec") && table[1].contains("allow_other"), "{text}");
    let passphrase = fs::read_to_string(Path::new(ROOT).join("samples/demo-passphrase")).unwrap();
    assert!(text.contains("--passphrase-file=") && !text.contains(passphrase.trim()), "{text}");
    assert!(text.ends_with("dupfs\nmounts: 0\n"), "{text}");
}

#[test]
fn a_line_of_the_fstab_has_a_repository_of_the_configuration_and_its_user_may_unmount() {
    let text = succeeds(
        r#"
        mkdir -p home/.config/dupfs
        printf '[repository.site]\nurl = "%s"\nsecret-key = "%s"\npassphrase-command = "cat %s"\n' \
            "$url" "$machine/key" "$machine/passphrase" >home/.config/dupfs/config.toml
        fstab "site $machine/mnt fuse.dupfs noauto,_netdev,x-systemd.automount,x-systemd.idle-timeout=1min 0 0" \
            "$url $machine/open dupfs noauto,user,exec,umask=077,cache_dir=$machine/cache,$keys 0 0"
        mount mnt
        ls mnt/latest/var/backups/mysql
        mount -a
        findmnt -no TARGET -t fuse.dupfs | wc -l
        umount mnt
        chown 65534 open key passphrase
        mkdir -m 700 cache
        chown 65534 cache
        nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
        nobody mount "$machine/open"
        nobody stat -c '%U %A' open/latest/var
        ls open || echo closed to root
        nobody umount "$machine/open"
        echo "mounts: $(findmnt -rn -t fuse.dupfs | wc -l)"
        "#,
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["shop.sql", "shop.sql.gz", "1"], "{text}");
    assert!(text.contains(" drwx------\n") && text.contains("closed to root\nmounts: 0\n"), "{text}");
}

#[test]
fn the_exit_codes_are_those_of_mount_8_and_the_line_helps() {
    let text = succeeds(
        r#"
        ln -s mount.dupfs sbin/mount.fuse.dupfs
        code() { local code=0; "$@" || code=$?; echo "code $code"; }
        code mount -t dupfs "$url" mnt -o "secretkey=$machine/key"
        code mount -t dupfs "$url" mnt -o "remount"
        code mount -t dupfs "$url/missing" mnt -o "$keys"
        code mount -t fuse.dupfs "$url" mnt -o "secret_key=$machine/key,passphrase_file=/dev/null"
        code mount -f -t dupfs "$url" mnt -o "$keys"
        code mount.dupfs --version
        export AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b
        code mount -t dupfs s3://bucket/x mnt -o timeout=1,s3_endpoint_url=http://127.0.0.1:9
        code mount -t dupfs s3://bucket/x mnt -o timeout=1,s3_endpoint_url=http://127.0.0.1:9,_netdev
        code mount.dupfs "$url"
        mkdir dev
        mount --bind dev /dev
        mknod -m 666 /dev/null c 1 3
        code mount -t dupfs "$url" mnt -o "$keys"
        echo "mounts: $(findmnt -rn -t fuse.dupfs | wc -l)"
        "#,
    );
    let codes: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("code ")).collect();
    assert_eq!(codes, ["1", "1", "32", "32", "0", "0", "32", "32", "1", "32"], "{text}");
    for expected in [
        "unknown mount option secretkey: did you mean secret_key?",
        "the options of a dupfs mount cannot be changed (remount)",
        "if the network was not up yet, add _netdev to the options of this line in /etc/fstab\ncode 32\n",
        "/dev/fuse",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(text.matches("_netdev").count() == 1 && text.ends_with("mounts: 0\n"), "{text}");
}

#[test]
fn a_wrong_option_is_one_line_with_the_reason_and_its_place() {
    let text = succeeds(
        r#"
        ln -s mount.dupfs sbin/mount.fuse.dupfs
        refused() { echo "-- $*"; local code=0; "$@" || code=$?; echo "code $code"; }
        for item in memory=abc sizes=foo time=foo sign_key=ABCDEF0123456789 quiet,verbose; do
            refused mount -t fuse.dupfs "$url" mnt -o "$keys,$item"
            refused mount -t dupfs "$url" mnt -o "$keys,$item"
        done
        mkdir -p home/.config/dupfs
        printf '[defaults]\nmemory = "abc"\n' >home/.config/dupfs/config.toml
        refused mount -t dupfs "$url" mnt -o "$keys"
        printf '[defaults]\ntime = "foo"\n' >home/.config/dupfs/config.toml
        refused mount -t dupfs "$url" mnt -o "$keys"
        rm home/.config/dupfs/config.toml
        DUPFS_TIME=foo refused mount -t dupfs "$url" mnt -o "$keys"
        DUPFS_SIGN_KEY=ABCDEF01 refused mount -t dupfs "$url" mnt -o "$keys"
        DUPFS_PASSPHRASE_FILE=/none refused mount -t dupfs "$url" mnt -o "secret_key=$machine/key"
        echo "mounts: $(findmnt -rn -t fuse.dupfs | wc -l)"
        "#,
    );
    let unit = "unknown unit \"ABC\": give bytes as 512M or 4G";
    let mut lines = text.lines().filter(|line| !line.starts_with("-- "));
    let mut expect = |expected: &str| {
        let (found, code) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(code, "code 1", "{found}: {text}");
        assert!(found.contains(expected), "{expected}: {found}");
    };
    for expected in [
        &format!("dupfs: mount option memory=abc: {unit}"),
        "dupfs: mount option sizes=foo: give one of: exact, bound",
        "dupfs: mount option time: 'foo' is not a time",
        "dupfs: mount option verify_key FILE is missing, which another option needs; see dupfs help mount",
        "dupfs: mount option quiet cannot be used with mount option verbose",
    ] {
        expect(expected);
        expect(expected);
    }
    expect(&format!("/.config/dupfs/config.toml:2: memory: {unit}"));
    expect("/.config/dupfs/config.toml:2 sets --time");
    expect("; DUPFS_TIME sets --time");
    let missing = "dupfs: mount option verify_key FILE is missing, which another option needs; see dupfs help mount";
    expect(&format!("{missing}; DUPFS_SIGN_KEY sets --sign-key"));
    expect("; DUPFS_PASSPHRASE_FILE sets --passphrase-file");
    assert_eq!((lines.next(), lines.next()), (Some("mounts: 0"), None), "{text}");
}
