//! The session in README.md, run as shown on a machine with little more than the program, and the location of the
//! errors of a mount there; and `scripts/demo`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::Scratch;
use crate::support::exec::{output, run};
use crate::support::mount::require_fuse;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs `script` in a bare root. Returns its output.
fn in_bare_root(script: &str) -> String {
    require_fuse();
    let scratch = Scratch::new();
    let file = scratch.path().join("script");
    fs::write(&file, script).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh"]).arg(Path::new(ROOT).join("tests/support/bare-root.sh"));
    command.arg(scratch.dir("root")).arg(env!("CARGO_BIN_EXE_dupfs")).arg(Path::new(ROOT).join("samples")).arg(&file);
    String::from_utf8(run(&mut command)).unwrap()
}

/// The commands of the session in README.md, each with the output shown.
fn session() -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let (_, block) = text.split_once("```console\n").expect("a session");
    let (block, _) = block.split_once("```").unwrap();
    let mut session: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => session.push((command.to_owned(), String::new())),
            None => {
                let shown = &mut session.last_mut().unwrap().1;
                shown.push_str(line);
                shown.push('\n');
            }
        }
    }
    session
}

#[test]
fn the_session_in_the_readme_works_as_it_is_shown() {
    let session = session();
    assert!(session.len() >= 7, "{session:?}");
    // As on a terminal.
    let mut script = "set -e\nexec 2>&1\nls() { command ls -C -w 80 \"$@\"; }\n".to_owned();
    for (number, (command, _)) in session.iter().enumerate() {
        script.push_str(&format!("echo '--- {number}'\n{command}\n"));
    }
    script.push_str(
        "echo '--- end'\ncommand ls srv* /srv/www/shop/assets 2>&1 || true\nwc -c < /tmp/mysql-shop\ncommand ls -A /var/log /mnt\n",
    );
    let output = in_bare_root(&script);
    for (number, (command, shown)) in session.iter().enumerate() {
        let (_, after) = output.split_once(&format!("--- {number}\n")).unwrap_or_else(|| panic!("{command}: {output}"));
        let output = after.split("--- ").next().unwrap();
        if command.starts_with("ls -l") {
            // The form of a date depends on the current date.
            let names =
                |text: &str| text.lines().filter_map(|l| l.rsplit(' ').next().map(str::to_owned)).collect::<Vec<_>>();
            let sizes = |text: &str| {
                text.lines().filter_map(|l| l.split_whitespace().nth(4).map(str::to_owned)).collect::<Vec<_>>()
            };
            assert_eq!((names(output), sizes(output)), (names(shown), sizes(shown)), "{command}");
        } else {
            assert_eq!(output, shown, "{command}");
        }
    }
    let (_, end) = output.split_once("--- end\n").unwrap();
    assert!(end.contains("img") && end.contains("2308269\n"), "{end}");
    // There was no error, so there is no log. Nothing is mounted any more.
    assert!(end.ends_with("/mnt:\n\n/var/log:\n"), "{end}");
}

#[test]
fn the_picture_shows_the_session() {
    let picture = fs::read_to_string(Path::new(ROOT).join("docs/pictures/session.svg")).unwrap();
    let texts: Vec<String> = picture
        .lines()
        .filter_map(|line| line.strip_prefix("<text ")?.split_once('>')?.1.strip_suffix("</text>"))
        .map(|text| text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        .collect();
    let expected: Vec<String> = session()
        .into_iter()
        .flat_map(|(command, shown)| {
            let output: Vec<String> = shown.lines().map(str::to_owned).collect();
            [vec![format!("$ {command}")], output].concat()
        })
        .collect();
    assert_eq!(texts, expected, "scripts/picture draws it again");
}

#[test]
fn without_a_system_log_errors_go_to_a_private_file_that_mount_names() {
    let output = in_bare_root(
        "exec 2>&1\n\
         mkdir store; cp /backups/shop/* store; rm store/*to.20260120T021500Z.vol1*\n\
         dupfs mount --secret-key key.asc --passphrase-file passphrase store /mnt\n\
         cat /mnt/snapshots/20260120T021500Z/var/backups/mysql/shop.sql > /dev/null && echo read\n\
         stat -c '%a %n' /var/log/dupfs.log; cat /var/log/dupfs.log\n\
         dupfs umount /mnt\n\
         mkdir -p /home/x/mnt; chown -R 65534:65534 /home/x; cp -r store key.asc passphrase /home/x\n\
         chown -R 65534:65534 /home/x; cd /home/x\n\
         as='setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/home/x'\n\
         ls -l /dev/fuse > /dev/null\n\
         $as dupfs mount --secret-key key.asc --passphrase-file passphrase store mnt\n\
         $as cat mnt/snapshots/20260120T021500Z/var/backups/mysql/shop.sql > /dev/null && echo read\n\
         stat -c '%a %n' .local/state/dupfs .local/state/dupfs/dupfs.log\n\
         cut -d' ' -f3 .local/state/dupfs/dupfs.log\n\
         $as dupfs umount mnt\n",
    );
    assert!(output.contains("600 /var/log/dupfs.log\n"), "{output}");
    assert!(
        output.contains("dupfs: error: ") && output.contains("20260120T021500Z/var/backups/mysql/shop.sql"),
        "{output}"
    );
    assert!(output.contains("700 .local/state/dupfs\n600 .local/state/dupfs/dupfs.log\nerror:"), "{output}");
    assert!(!output.contains("read\n"), "{output}");
}

/// A copy of what `scripts/demo` needs, and a PATH whose `dpkg-query`, `apt-get` and `cargo` write their arguments to the file
/// `log`: no package is installed, and the build only provides the program.
struct DemoCopy(Scratch);

impl DemoCopy {
    /// A copy in which `apt-get` runs the shell commands `apt`.
    fn new(apt: &str) -> Self {
        require_fuse();
        let scratch = Scratch::new();
        let copy = scratch.dir("copy");
        run(Command::new("cp")
            .arg("-a")
            .args(["Cargo.toml", "samples"].map(|name| Path::new(ROOT).join(name)))
            .arg(&copy));
        fs::create_dir(copy.join("scripts")).unwrap();
        for name in ["demo", "lib.sh"] {
            fs::copy(Path::new(ROOT).join("scripts").join(name), copy.join("scripts").join(name)).unwrap();
        }
        let program = env!("CARGO_BIN_EXE_dupfs");
        let installs = "case $* in *\" install \"*) for name; do touch \"$DEMO/packages/${name##*/}\"; done ;; esac";
        let build = format!("echo THE-BUILD; mkdir -p target/release; cp {program} target/release/dupfs");
        for (name, script) in [
            ("dpkg-query", "for name; do :; done\n[ -e \"$DEMO/packages/$name\" ] && printf installed".to_owned()),
            ("apt-get", format!("{apt}\n{installs}\nexit 0")),
            ("cargo", format!("case $1 in --version) echo cargo 1.99.0 ;; build) {build} ;; *) exit 1 ;; esac")),
            ("sudo", "exec \"$@\"".to_owned()),
        ] {
            let file = scratch.dir("bin").join(name);
            let text = format!("#!/bin/sh\necho \"{name} $*\" >> \"$DEMO/log\"\n{script}\n");
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        for dir in ["home", "tmp", "packages"] {
            scratch.dir(dir);
        }
        Self(scratch)
    }

    /// Runs the script. Returns its exit code, standard output and standard error.
    fn run(&self) -> (Option<i32>, String, String) {
        let mut command = Command::new(self.0.path().join("copy/scripts/demo"));
        command.env("PATH", format!("{}:{}", self.0.path().join("bin").display(), std::env::var("PATH").unwrap()));
        command.env("DEMO", self.0.path()).env("HOME", self.0.path().join("home"));
        command.env("TMPDIR", self.0.path().join("tmp")).env_remove("CARGO_TARGET_DIR");
        let output = output(&mut command);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// The calls of the replaced programs, in order.
    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.0.path().join("log")).unwrap().lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_demo_installs_what_is_missing_builds_mounts_and_names_the_installation() {
    let demo = DemoCopy::new("");
    let (code, out, err) = demo.run();
    assert_eq!((code, &*err), (Some(0), ""), "{out}\n{:?}", demo.calls());
    // Certificates first: without them nothing else can be fetched.
    let calls = demo.calls();
    let installed: Vec<_> =
        calls.iter().filter(|call| call.starts_with("apt-get ") && call.contains(" install ")).collect();
    assert!(installed.len() == 2 && installed[0].ends_with(" --no-install-recommends ca-certificates"), "{calls:?}");
    assert!(installed[1].ends_with(" fuse3 build-essential"), "{calls:?}");
    let position = |start: &str| calls.iter().position(|call| call.starts_with(start)).unwrap();
    assert!(position("dpkg-query ") < position("apt-get ") && position("apt-get ") < position("cargo "), "{calls:?}");
    assert!(calls.iter().any(|call| call == "cargo build --release"), "{calls:?}");
    // The duration of the build is announced with the requirements and again at its beginning.
    let (before, _) = out.split_once("THE-BUILD\n").unwrap();
    let announced: Vec<_> = before.lines().filter(|line| line.contains("five to ten minutes on two cores")).collect();
    assert!(announced.len() == 2 && announced.iter().all(|line| line.contains("2 GB of disk")), "{before}");
    assert!(before.lines().next_back().unwrap().starts_with("== Building: "), "{before}");
    // The last lines install the program that was built, and mount another backup.
    let last: Vec<_> = out.lines().rev().take(2).collect();
    assert!(last[0].starts_with("   your own:  dupfs mount "), "{out}");
    let install = "   install:   sudo install target/release/dupfs /usr/local/bin   (or: cargo install --path .)";
    assert_eq!(last[1], install);
    assert!(demo.0.path().join("copy/target/release/dupfs").is_file());
    assert_eq!(fs::read_dir(demo.0.path().join("tmp")).unwrap().count(), 0, "it removes what it created");
    // The second run installs nothing.
    fs::remove_file(demo.0.path().join("log")).unwrap();
    let (code, out, err) = demo.run();
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(!demo.calls().iter().any(|call| call.starts_with("apt-get ")), "{:?}", demo.calls());
}

/// The line of README.md that starts with `begin`, without the explanation behind it.
fn documented(begin: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("    ").filter(|line| line.starts_with(begin)));
    line.unwrap_or_else(|| panic!("README.md has no {begin}")).split("   ").next().unwrap().to_owned()
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn the_demo_and_cargo_install_build_the_program_as_documented() {
    require_fuse();
    let scratch = Scratch::new();
    let script = |command: &str| {
        let mut shell = Command::new("sh");
        // Both use one build. The variable replaces the directory ~/.cargo.
        shell.args(["-euc", command]).current_dir(ROOT).env("CARGO_INSTALL_ROOT", scratch.path());
        String::from_utf8(run(&mut shell)).unwrap()
    };
    let shown = script(&documented("scripts/demo"));
    assert!(shown.contains("\n30360\n") && shown.contains("\n   install:   sudo install "), "{shown}");
    script(&documented("cargo install --path ."));
    let version = run(Command::new(scratch.path().join("bin/dupfs")).arg("--version"));
    assert_eq!(version, format!("dupfs {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
}

#[test]
fn the_demo_stops_with_one_line_when_a_package_cannot_be_installed() {
    for (reason, expected) in [
        ("E: Unable to locate package", "demo: apt could not install ca-certificates"),
        (
            "E: Failed to fetch http://mirror/",
            "demo: apt cannot reach its mirrors: connect this machine, or install by hand: ca-certificates",
        ),
        (
            "E: Could not get lock /var/lib/dpkg/lock-frontend",
            "demo: another apt has held the lock for more than three minutes: wait for it, then start again",
        ),
    ] {
        let demo = DemoCopy::new(&format!("echo '{reason}' >&2; exit 100"));
        let (code, out, err) = demo.run();
        assert_eq!(code, Some(1), "{out}\n{err}");
        // apt's own reason, and the line of the script.
        assert_eq!(err, format!("{reason}\n{expected}\n"));
        let calls = demo.calls();
        assert!(calls.iter().all(|call| !call.starts_with("cargo ")), "{calls:?}");
        assert_eq!(fs::read_dir(demo.0.path().join("tmp")).unwrap().count(), 0, "{out}");
    }
}
