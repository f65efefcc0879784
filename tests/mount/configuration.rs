//! Repositories with names, and options from the environment and the configuration file, in the program itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Scratch;
use crate::support::exec::{Dupfs, output, run};
use crate::support::mount::{Mount, require_fuse};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

/// The sample as the repository `site`, whose passphrase a command prints.
fn site() -> String {
    let passphrase = fs::read_to_string(sample("demo-passphrase")).unwrap();
    format!(
        "[defaults]\nmemory = '64M'\n\n[repository.site]\nurl = 'file://{}'\nsecret-key = '{}'\n\
         passphrase-command = \"echo '{}'\"\n",
        sample("backup").display(),
        sample("demo-key.secret.asc").display(),
        passphrase.trim_end()
    )
}

/// Writes the configuration of the user whose home is `scratch`.
fn configure(scratch: &Scratch, text: &str, mode: u32) -> PathBuf {
    let file = scratch.dir(".config/dupfs").join("config.toml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[test]
fn a_repository_is_mounted_by_its_name() {
    require_fuse();
    let scratch = Scratch::new();
    configure(&scratch, &site(), 0o600);
    let dupfs = Dupfs::new(scratch.path());
    let mount = Mount::new(&dupfs, "site", &scratch.dir("mnt"));
    let files = fs::read_dir(mount.path().join("latest")).unwrap().count();
    assert!(files > 0);
    // The arguments of a process are public, and the file is not.
    let arguments = fs::read(format!("/proc/{}/cmdline", mount.pid())).unwrap();
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    assert!(arguments.contains("site") && !arguments.contains("echo"), "{arguments}");
    mount.unmount();

    // The names also work in a file that is named, and without a mount.
    let other = scratch.path().join("other.toml");
    fs::rename(scratch.path().join(".config/dupfs/config.toml"), &other).unwrap();
    let listed = dupfs.run("ls", &["--config", other.to_str().unwrap(), "site"]);
    assert_eq!(String::from_utf8(listed).unwrap().lines().count(), files);
    let named = dupfs.clone().variable("DUPFS_CONFIG", other.to_str().unwrap());
    assert!(!named.run("ls", &["site"]).is_empty());
    let (code, message) = named.fails("ls", &["stie"]);
    assert!(code == Some(3) && message.ends_with("did you mean site?\n"), "{message}");
}

#[test]
fn an_index_is_cleared_by_its_name_beside_a_configuration() {
    let scratch = Scratch::new();
    configure(&scratch, &site(), 0o600);
    let dupfs = Dupfs::new(scratch.path());
    dupfs.run("ls", &["site"]);
    let listed = String::from_utf8(dupfs.run("cache", &["ls", "--json"])).unwrap();
    let name = listed.split('"').find(|text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()));
    let (code, message) = dupfs.fails("cache", &["clear", "stie"]);
    assert!(code == Some(3) && message.contains("there is no index of this backup in"), "{message}");
    let cleared = String::from_utf8(dupfs.run("cache", &["clear", name.unwrap()])).unwrap();
    assert!(cleared.contains("removed 1 item"), "{cleared}");
}

#[test]
fn a_configuration_that_others_control_is_refused() {
    let scratch = Scratch::new();
    let dupfs = Dupfs::new(scratch.path());
    let file = configure(&scratch, &site(), 0o644);
    let refused = |part: &str| {
        let (code, message) = dupfs.fails("sets", &["site"]);
        assert!(code == Some(4) && message.lines().count() == 1 && message.contains(part), "{message}");
    };
    refused(":7: passphrase-command prints a secret");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o622)).unwrap();
    refused("chmod 600");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
    refused("belongs to another user (65534)");
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    assert!(!dupfs.run("sets", &["site"]).is_empty());
}

#[test]
fn a_remark_on_a_variable_appears_once_although_the_program_starts_itself_again() {
    require_fuse();
    let scratch = Scratch::new();
    let passphrase = fs::read_to_string(sample("demo-passphrase")).unwrap();
    let dupfs = Dupfs::new(scratch.path()).passphrase(passphrase.trim_end()).variable("DUPFS_MEMROY", "64M");
    let dupfs = dupfs.variable("DUPFS_SECRET_KEY", sample("demo-key.secret.asc").to_str().unwrap());
    let (url, mnt) = (format!("file://{}", sample("backup").display()), scratch.dir("mnt"));
    let expected = "the variable DUPFS_MEMROY is ignored: did you mean DUPFS_MEMORY?";
    let listed = output(dupfs.command("ls").arg(&url));
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(String::from_utf8_lossy(&listed.stderr).matches(expected).count(), 1, "{listed:?}");
    let mounted = output(dupfs.command("mount").arg(&url).arg(&mnt));
    assert!(mounted.status.success(), "{mounted:?}");
    assert_eq!(String::from_utf8_lossy(&mounted.stderr).matches(expected).count(), 1, "{mounted:?}");
    dupfs.run("umount", &[mnt.to_str().unwrap()]);
    let (code, message) = dupfs.variable("DUPFS_MEMORY", "lots").fails("ls", &[&url]);
    assert!(code == Some(2) && message.contains("DUPFS_MEMORY: memory: "), "{message}");
}

/// Runs a script of bash in which `dupfs` is the program. Returns the lines of its output.
fn bash(scratch: &Scratch, script: &str) -> Vec<String> {
    let programs = scratch.dir("bin");
    let link = programs.join("dupfs");
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dupfs"), &link).unwrap();
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-euc", script]).env("PATH", path).env("HOME", scratch.path()).current_dir(scratch.path());
    let output = run(bash.env_remove("XDG_CONFIG_HOME").env_remove("DUPFS_CONFIG"));
    String::from_utf8(output).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_repositories() {
    let scratch = Scratch::new();
    configure(&scratch, &site(), 0o600);
    scratch.dir("sisters");
    let complete = |words: &str| {
        let script = format!(
            "source <(dupfs completions bash)\ncomplete -p dupfs >&2\nCOMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}}-1))\n\
             COMP_TYPE=9\n_clap_complete_dupfs dupfs \"${{COMP_WORDS[COMP_CWORD]}}\" x\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut lines = bash(&scratch, &script);
        lines.sort();
        lines
    };
    assert_eq!(complete("dupfs mou"), ["mount"]);
    assert_eq!(complete("dupfs ls --mem"), ["--memory"]);
    assert_eq!(complete("dupfs ls si"), ["sisters/", "site"]);
    assert_eq!(complete("dupfs verify si"), ["sisters/", "site"]);
    assert!(complete("dupfs completions ''").contains(&"zsh".to_owned()));
    // A configuration that cannot be used costs the names only.
    configure(&scratch, "nonsense", 0o600);
    assert_eq!(complete("dupfs ls si"), ["sisters/"]);
}

#[test]
fn the_scripts_are_valid_for_their_shells_and_the_manual_pages_for_man() {
    let scratch = Scratch::new();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = scratch.path().join(shell);
        fs::write(&script, run(Dupfs::new(scratch.path()).command("completions").arg(shell))).unwrap();
        let checked = output(Command::new(shell).arg(check).arg(&script).env("HOME", scratch.path()));
        assert!(checked.status.success() && checked.stderr.is_empty(), "{shell}: {checked:?}");
    }
    let pages = scratch.path().join("share/man1");
    run(Dupfs::new(scratch.path()).command("man").arg(&pages).env("SOURCE_DATE_EPOCH", "1769300000"));
    let mut files: Vec<PathBuf> = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 8 && files.iter().any(|file| file.ends_with("dupfs-cat.1")), "{files:?}");
    let linted = output(Command::new("mandoc").args(["-Tlint", "-Wwarning"]).args(&files));
    assert_eq!(String::from_utf8_lossy(&linted.stdout), "", "{:?}", linted.status);
    let formatted = output(Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).args(&files));
    assert_eq!(String::from_utf8_lossy(&formatted.stderr), "");
    let shown = String::from_utf8(run(Command::new("mandoc").args(["-Tascii"]).arg(pages.join("dupfs.1")))).unwrap();
    assert!(shown.contains("2026-01-25"), "{shown}");
}
