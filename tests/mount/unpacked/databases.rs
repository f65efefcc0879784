//! The clients of databases on dumps whose size is not known yet: that of MariaDB with its server, and `psql` of PostgreSQL with
//! a server that records what it gets.
//!
//! A whole dump shows that a client reads to the end although it gets a size of 0. Of a dump whose end is damaged the size cannot
//! be found, which fails after a pass over the dump: a client that runs what is before the damage has not waited for it. A copy
//! of the client under another name waits, and gets the error.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dupfs_base::hex;

use super::{Backup, pipe};
use crate::support::{Scratch, exec, noise};

/// Rows of a dump, of about a kilobyte each. A pass over it ends long after its first statements are known.
const ROWS: u64 = 1500;

/// Bytes of a compressed dump that are missing at its end.
const MISSING: usize = 2000;

/// A dump, one statement a line.
fn statements() -> Vec<u8> {
    let row = |row| format!("INSERT INTO t VALUES ({row},'{}');\n", hex(&noise(row, 500)));
    (0..ROWS).map(row).collect::<String>().into_bytes()
}

/// A backup with `plain` compressed, whole and without its end, for each of `names`.
fn backup<'a>(names: impl IntoIterator<Item = &'a str>, plain: &[u8]) -> Backup {
    let packed = pipe(plain, "gzip", &["-c"]);
    Backup::of(|source| {
        for name in names {
            fs::write(source.join(format!("{name}-whole.sql.gz")), &packed).unwrap();
            fs::write(source.join(format!("{name}-damaged.sql.gz")), &packed[..packed.len() - MISSING]).unwrap();
        }
    })
}

/// The name of a program that is not known to read to the end whatever the size is.
const OTHER: &str = "other-client";

/// A directory with a copy of the program at `path` (a pattern of the shell) under the name [`OTHER`].
fn renamed(path: &str) -> Scratch {
    let scratch = Scratch::new();
    let mut copy = Command::new("sh");
    exec::run(copy.args(["-c", &format!("cp -L {path} \"$0\"")]).arg(scratch.path().join(OTHER)));
    scratch
}

/// Runs `script` with `file` as `$0`.
fn shell(script: &str, file: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new("bash");
    command.args(["-euc", script]).arg(file).env("LC_ALL", "C.UTF-8").envs(variables.iter().copied());
    exec::output(&mut command)
}

/// A server of MariaDB, which ends when it is dropped.
struct MariaDb {
    server: Child,
    scratch: Scratch,
}

impl MariaDb {
    fn start() -> Self {
        let scratch = Scratch::new();
        // MariaDB does not run as root.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = scratch.path().join("data");
        exec::run(Command::new("install").args(["-d", "-o", "mail", "-g", "mail"]).arg(&data));
        let (data, socket) = (format!("--datadir={}/db", data.display()), format!("--socket={}/s", data.display()));
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=mail"]);
        exec::run(install.arg(&data));
        let log = File::create(scratch.path().join("log")).unwrap();
        let mut server = Command::new("mariadbd");
        server.args([
            "--no-defaults",
            "--user=mail",
            "--skip-networking",
            "--innodb-flush-log-at-trx-commit=0",
            &data,
            &socket,
        ]);
        server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let server = server.spawn().unwrap_or_else(|error| panic!("cannot start mariadbd: {error}"));
        let database = Self { server, scratch };
        let start = Instant::now();
        while !exec::output(Command::new("mariadb-admin").args(database.options()).arg("ping")).status.success() {
            let log = fs::read(database.scratch.path().join("log")).unwrap();
            assert!(start.elapsed() < Duration::from_secs(60), "MariaDB does not start: {}", exec::tail(&log));
            std::thread::sleep(Duration::from_millis(50));
        }
        database
    }

    fn options(&self) -> Vec<String> {
        let socket = self.scratch.path().join("data/s");
        vec!["--no-defaults".into(), format!("--socket={}", socket.display()), "--user=root".into()]
    }

    /// The result of `query`.
    fn query(&self, query: &str) -> String {
        let mut client = Command::new("mariadb");
        let result =
            exec::run(client.args(self.options()).args(["--batch", "--skip-column-names", "--execute", query]));
        String::from_utf8(result).unwrap().trim_end().to_owned()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn clients_of_mariadb_run_a_dump_from_its_beginning_to_its_end() {
    let ways = [
        ("mariadb-input", r#"mariadb $options <"$0""#),
        ("mysql-input", r#"mysql $options <"$0""#),
        ("mariadb-source", r#"mariadb $options --execute "source $0""#),
        ("mysql-source", r#"mysql $options --execute "source $0""#),
    ];
    let plain = statements();
    let backup = backup(ways.map(|(name, _)| name).into_iter().chain([OTHER]), &plain);
    let (database, other) = (MariaDb::start(), renamed("/usr/bin/mariadb"));
    let run = |name: &str, script: &str, file: &str| -> (Output, u64) {
        database.query("create or replace database shop; create table shop.t (n int, h text)");
        let options = database.options().join(" ") + " --database=shop";
        let output = shell(script, &backup.at(&format!("{name}-{file}.sql")), &[("options", &options)]);
        (output, database.query("select count(*) from shop.t").parse().unwrap())
    };
    for (name, script) in ways {
        let (output, rows) = run(name, script, "whole");
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(rows, ROWS, "{name}");
        let (output, rows) = run(name, script, "damaged");
        assert!(rows > 0 && rows < ROWS, "{name}: {rows} rows; {output:?}");
        assert!(!output.status.success() && exec::tail(&output.stderr).contains("Input/output error"), "{output:?}");
    }
    let other = format!(r#"{}/{OTHER} $options <"$0""#, other.path().display());
    let (output, rows) = run(OTHER, &other, "damaged");
    assert!(!output.status.success() && rows == 0, "{rows} rows; {output:?}");
}

/// A server that speaks as much of PostgreSQL's protocol as `psql` needs to send statements. It records them, and the bytes that
/// are copied into a table, and runs nothing.
struct RecordingServer {
    port: u16,
    received: Arc<Mutex<Vec<u8>>>,
}

impl RecordingServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, received) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let record = Arc::clone(&received);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A client that closes the connection has ended.
                let _ = serve(client, &record);
            }
        });
        Self { port, received }
    }

    fn take_received(&self) -> Vec<u8> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }
}

/// Serves one connection: <https://www.postgresql.org/docs/15/protocol.html>.
fn serve(mut client: TcpStream, received: &Mutex<Vec<u8>>) -> io::Result<()> {
    client.set_nodelay(true)?;
    // The options of the connection are of no interest.
    take_body(&mut client)?;
    // No password is requested, and a statement may follow.
    let ready = message(b'Z', b"I");
    client.write_all(&[message(b'R', &[0; 4]), message(b'S', b"server_version\x0015.0\0"), ready.clone()].concat())?;
    let mut kind = [0];
    while client.read(&mut kind)? == 1 {
        let body = take_body(&mut client)?;
        let answer = match kind[0] {
            b'Q' if body.starts_with(b"COPY") => message(b'G', &[0; 3]),
            b'Q' => {
                let mut received = received.lock().unwrap();
                received.extend(body.strip_suffix(b"\0").unwrap());
                received.push(b'\n');
                [message(b'C', b"INSERT 0 1\0"), ready.clone()].concat()
            }
            b'd' => {
                received.lock().unwrap().extend(body);
                Vec::new()
            }
            b'c' => [message(b'C', b"COPY 1\0"), ready.clone()].concat(),
            b'f' => [message(b'E', b"SERROR\0C57014\0Mthe client ends the copy\0\0"), ready.clone()].concat(),
            _ => return Ok(()),
        };
        client.write_all(&answer)?;
    }
    Ok(())
}

/// A message of the protocol. Its length includes that of the field with the length.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &len.to_be_bytes(), body].concat()
}

/// The body of a message whose kind has been read.
fn take_body(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    client.read_exact(&mut len)?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap() - 4];
    client.read_exact(&mut body)?;
    Ok(body)
}

#[test]
fn psql_sends_a_dump_from_its_beginning_to_its_end() {
    let ways = [
        ("input", r#"psql $options <"$0""#),
        ("file", r#"psql $options --file "$0""#),
        ("include", r#"psql $options --command "\\i $0""#),
        ("copy", r#"psql $options --command "\\copy t from '$0'""#),
        ("pipe", r#"set -o pipefail; cat "$0" | psql $options"#),
    ];
    let plain = statements();
    let backup = backup(ways.map(|(name, _)| name).into_iter().chain([OTHER, "stop", "go-on"]), &plain);
    let (server, other) = (RecordingServer::start(), renamed("/usr/lib/postgresql/*/bin/psql"));
    let run = |name: &str, script: &str, file: &str| {
        let options =
            format!("--no-psqlrc --quiet --set ON_ERROR_STOP=1 --host 127.0.0.1 --port {} --username u d", server.port);
        let variables = [("options", options.as_str()), ("PGSSLMODE", "disable"), ("PGGSSENCMODE", "disable")];
        let output = shell(script, &backup.at(&format!("{name}-{file}.sql")), &variables);
        (output, server.take_received())
    };
    for (name, script) in ways {
        let (output, received) = run(name, script, "whole");
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(received == plain, "{name}: {} of {} bytes", received.len(), plain.len());
        let (output, received) = run(name, script, "damaged");
        // From a pipe it takes the damage for the end, and ends the last line itself.
        let received = received.strip_suffix(b"\n").unwrap_or(&received);
        assert!(!received.is_empty() && plain.starts_with(received), "{name}: {} bytes; {output:?}", received.len());
        // A copy is ended with an error of the server.
        let reported = if name == "copy" { "the client ends the copy" } else { "Input/output error" };
        assert!(exec::tail(&output.stderr).contains(reported), "{name}: {output:?}");
        assert!(!output.status.success(), "{name}: {output:?}");
    }
    // Without ON_ERROR_STOP the error is no reason to roll back (docs/SEMANTICS.md).
    for (name, value, end) in [("stop", "on", "ROLLBACK\n"), ("go-on", "off", "COMMIT\n")] {
        let script = format!(r#"psql $options --single-transaction --set ON_ERROR_STOP={value} --file "$0""#);
        let (output, received) = run(name, &script, "damaged");
        assert!(!output.status.success(), "{name}: {output:?}");
        let is_whole = received.starts_with(b"BEGIN\n") && received.ends_with(end.as_bytes());
        assert!(is_whole, "{name}: {}", exec::tail(&received));
    }
    // It needs the size for a copy only.
    let other = format!(r#"{}/{OTHER} $options --command "\\copy t from '$0'""#, other.path().display());
    let (output, received) = run(OTHER, &other, "damaged");
    assert!(!output.status.success() && received.is_empty(), "{} bytes; {output:?}", received.len());
}
