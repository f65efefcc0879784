//! Files whose decoders need more memory together than `--memory` has.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::process::{Command, Stdio};
use std::thread;

use super::Backup;
use crate::support::exec;

/// Bytes of each file: more than the window, so that a decoder uses all of it.
const LEN: u64 = 80 << 20;
/// The window of `xz -9`, with the speed of `xz -0`.
const WINDOW: &str = "--lzma2=preset=0,dict=64MiB";

fn xz(from: &std::path::Path, to: &std::path::Path) {
    let to = File::create(to).unwrap();
    exec::run(Command::new("xz").args(["-c", WINDOW]).arg(from).stdout(to));
}

/// `--memory` has room for one decoder of 64 MiB. Three are needed at once, each by a reader in order.
#[test]
fn readers_of_files_of_xz_9_within_a_small_memory_get_their_bytes_one_after_the_other() {
    let options = ["--memory=128M", "--cache-size=0"];
    let backup = Backup::with_options(&options, |source| {
        let plain = source.join("plain");
        let mut out = BufWriter::new(File::create(&plain).unwrap());
        let mut number = 0_u64;
        let mut written = 0;
        while written < LEN {
            number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let line = format!("{:08x} {}\n", number >> 40, "a line that compresses well ".repeat(20));
            written += line.len() as u64;
            out.write_all(line.as_bytes()).unwrap();
        }
        out.into_inner().unwrap();
        xz(&plain, &source.join("a.xz"));
        for copy in ["b.xz", "c.xz"] {
            fs::copy(source.join("a.xz"), source.join(copy)).unwrap();
        }
        fs::rename(&plain, source.parent().unwrap().join("plain")).unwrap();
    });
    let plain = backup.scratch.path().join("plain");
    thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let (backup, plain) = (&backup, &plain);
            scope.spawn(move || {
                let output = Command::new("cmp").arg(backup.at(name)).arg(plain).stdin(Stdio::null()).output().unwrap();
                assert!(output.status.success(), "{name}: {output:?}\n{}", backup.log());
            });
        }
    });
    let mount = backup.mount.as_ref().unwrap();
    let peak = mount.peak_memory();
    println!("{} MiB", peak >> 20);
    assert!(peak < 256 << 20, "{peak} bytes");
    assert!(peak > 64 << 20, "the decoders had no window of 64 MiB: {peak} bytes");
}
