//! The session in README.md, run as shown on a machine with little more than the program, and the location of the
//! errors of a mount there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::Scratch;
use crate::support::exec::run;
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
