//! Measures the utilisation of the link to S3 while one large file is read sequentially. `scripts/bench-s3` runs it.
//! docs/BENCHMARKS.md has its results and explains them.
//!
//! Real duplicity writes the backup, `rclone serve s3` serves it, and a proxy in between simulates the link: every
//! answer is delayed by the latency, and all bodies share the bandwidth. The log of the link has the time of each
//! piece.
#![allow(unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_precision_loss, clippy::print_stdout)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use support::duplicity::{Mode, Repository};
use support::exec::{self, Dupfs};
use support::mount::Mount;
use support::proxy::{Piece, Proxy};
use support::s3::{KEY_ID, S3Server, SECRET};
use support::{Scratch, noise};

/// A setting from the environment, or its default.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

fn main() {
    let size = setting("BENCH_MB", 300) * 1_000_000;
    let volume = setting("BENCH_VOLUME_MB", 25);
    let latency = Duration::from_millis(setting("BENCH_LATENCY_MS", 50));
    let speed = setting("BENCH_LINK_MB", 100) as f64 * 1e6;
    let rounds = setting("BENCH_ROUNDS", 3);
    let mode = std::env::var("BENCH_MODE").unwrap_or_else(|_| "key".to_owned());

    let scratch = Scratch::new();
    // Without hashes, which the server would compute over the whole object for every range.
    let server = S3Server::start_with(&["--etag-hash", ""], "http");
    let proxy = Proxy::start(&server.address);
    let repo = backup(&scratch, &mode, size, volume, &server.bucket());
    let volumes = fs::read_dir(server.bucket())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(".difftar"));
    println!("{} MB in {} volumes, stored by mode {mode}", size / 1_000_000, volumes.count());
    println!("link: {latency:?}, {} MB/s; {rounds} rounds", speed / 1e6);
    let dupfs = reader(&repo, &proxy);
    for round in 1..=rounds {
        proxy.set_link(Duration::ZERO, None);
        let mount = Mount::new(&dupfs, "s3://bucket", &scratch.dir("mnt"));
        proxy.set_link(latency, Some(speed));
        proxy.clear_log();
        let start = Instant::now();
        let bytes = read(&mount.path().join("latest/big"));
        let took = start.elapsed();
        assert_eq!(bytes, size);
        report(round, start, took, bytes, volume * 1_000_000, speed, &proxy.pieces());
        mount.unmount();
    }
}

/// A backup of one file in `bucket`.
fn backup(scratch: &Scratch, mode: &str, size: u64, volume: u64, bucket: &Path) -> Repository {
    let source = scratch.dir("source");
    let mut file = BufWriter::new(File::create(source.join("big")).unwrap());
    for seed in 0..size / 1_000_000 {
        file.write_all(&noise(seed, 1_000_000)).unwrap();
    }
    file.into_inner().unwrap().sync_all().unwrap();
    let repo = Repository::new(
        "0.8.22",
        |home| match mode {
            "key" => Mode::Key(home.generate("bench", "rsa2048", "bench")),
            "gz" => Mode::Gzip,
            "plain" => Mode::Plain,
            other => panic!("BENCH_MODE={other}: give key, gz or plain"),
        },
        &scratch.dir("r"),
    );
    let mut command = repo.command("full");
    if mode == "key" {
        command.arg("--gpg-options=--compress-algo none --trust-model always --pinentry-mode loopback");
    }
    command.arg(format!("--volsize={volume}")).arg("--no-print-statistics").arg(&source);
    exec::run(command.arg(format!("file://{}", bucket.display())));
    fs::remove_dir_all(source).unwrap();
    repo
}

fn reader(repo: &Repository, proxy: &Proxy) -> Dupfs {
    let dupfs = repo.reader().option("--no-index").option(&format!("--s3-endpoint-url=http://{}", proxy.address));
    let options = std::env::var("BENCH_OPTIONS").unwrap_or_default();
    let dupfs = options.split_whitespace().fold(dupfs, |dupfs, option| dupfs.option(option));
    dupfs.variable("AWS_ACCESS_KEY_ID", KEY_ID).variable("AWS_SECRET_ACCESS_KEY", SECRET)
}

/// Reads the file as cat does.
fn read(path: &Path) -> u64 {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 128 * 1024];
    let mut all = 0;
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return all,
            n => all += n as u64,
        }
    }
}

/// Prints one line, and the periods in which the link was idle for longer than the latency of a request.
fn report(round: u64, start: Instant, took: Duration, bytes: u64, volume: u64, speed: f64, pieces: &[Piece]) {
    let after = |piece: &Piece| piece.at.saturating_duration_since(start).as_secs_f64();
    let mut seen = 0;
    let first = pieces.iter().position(|piece| {
        seen += piece.bytes;
        seen >= volume
    });
    let rest = &pieces[first.unwrap()..];
    let through: u64 = rest[1..].iter().map(|piece| piece.bytes).sum();
    let span = after(rest.last().unwrap()) - after(&rest[0]);
    println!(
        "round {round}: {:.1} MB/s read; first volume through after {:.2} s; then {:.0} MB in {span:.2} s: link {:.0} % busy",
        bytes as f64 / 1e6 / took.as_secs_f64(),
        after(&rest[0]),
        through as f64 / 1e6,
        100.0 * through as f64 / speed / span,
    );
    let mut idle: Vec<String> = Vec::new();
    for pair in pieces.windows(2) {
        let gap = after(&pair[1]) - after(&pair[0]) - pair[1].bytes as f64 / speed;
        if gap > 0.03 {
            idle.push(format!("{:.0} ms at {:.2} s", gap * 1e3, after(&pair[0])));
        }
    }
    println!("  stood still: {}", if idle.is_empty() { "never".to_owned() } else { idle.join(", ") });
}
