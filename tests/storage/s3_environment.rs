//! Settings that the S3 store reads from the environment: credentials and certificates. Each case runs this program
//! again in a separate environment.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::exec::test_name;
use crate::support::proxy::{Fault, Proxy};
use crate::support::s3::{KEY_ID, S3Server, SECRET};
use dupfs_base::{ByteRange, RequestContext};
use dupfs_read::storage::{S3Credentials, StoreOptions, open, parse_url};

/// Set when a test runs itself again in a separate environment.
const CHILD: &str = "TEST_CHILD";

/// Runs the test `name` of this program with an empty environment but for `HOME`, [`CHILD`], no metadata service, and
/// `variables`.
fn run_in(home: &Path, name: &str, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&test_name(module_path!(), name), "--exact", "--nocapture", "--test-threads=1"])
        .env_clear()
        .env("HOME", home)
        .env(CHILD, "1")
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(["DUPFS_TEST_DIR", "TMPDIR"].iter().filter_map(|v| Some((v, std::env::var_os(v)?))))
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn options() -> StoreOptions {
    let s3_unencrypted = std::env::var_os("TEST_TLS").is_none();
    StoreOptions { s3_unencrypted, s3_credentials: S3Credentials::Chain, ..StoreOptions::default() }
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// The test that runs as a child of itself and of another test: it prints the result of opening `TEST_URL`.
const OPENS: &str = "credentials_come_from_the_environment_profiles_processes_and_botos_files";

fn open_the_store_of_the_environment() {
    let location = parse_url(&std::env::var("TEST_URL").unwrap()).unwrap();
    match open(&location, &options()) {
        Ok(store) => println!("opened: {}", store.list(&RequestContext::unlimited()).unwrap().len()),
        Err(e) => println!("failed: {:?}: {e}", e.kind),
    }
}

fn renew_from_the_changed_file() {
    let file = Path::new(&std::env::var_os("HOME").unwrap()).join(".aws/credentials");
    let write = |id| fs::write(&file, profile("default", id)).unwrap();
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    write(KEY_ID);
    let server = S3Server::start_with(&["--auth-key", &format!("NEWKEY,{SECRET}")], "http");
    let proxy = Proxy::start(&server.address);
    fs::write(server.bucket().join("o"), "hello").unwrap();
    let store = open(&server.location(&proxy.address, "bucket"), &options()).unwrap();
    let object = store.list(&RequestContext::unlimited()).unwrap().remove(0);
    write("NEWKEY");
    proxy.set_plan(|r| (r.key.as_deref() == Some(KEY_ID)).then_some(Fault::Status(400, "ExpiredToken")));
    let mut text = String::new();
    store.open(&object, ByteRange::at(0, 9), &RequestContext::unlimited()).unwrap().read_to_string(&mut text).unwrap();
    let keys: Vec<_> = proxy.log().iter().filter_map(|r| r.key.clone()).collect();
    println!("read: {text} with {}", keys.last().unwrap());
}

fn profile(name: &str, id: &str) -> String {
    format!("[{name}]\naws_access_key_id = {id}\naws_secret_access_key = {SECRET}\n")
}

#[test]
fn credentials_come_from_the_environment_profiles_processes_and_botos_files() {
    if is_child() {
        return open_the_store_of_the_environment();
    }
    let server = S3Server::start();
    fs::write(server.bucket().join("o"), "x").unwrap();
    let url = format!("s3://{}/bucket", server.address);
    let home = tempfile::tempdir().unwrap();
    let opens = |variables: &[(&str, &str)]| {
        let variables: Vec<_> = variables.iter().copied().chain([("TEST_URL", &*url)]).collect();
        run_in(home.path(), OPENS, &variables)
    };
    let is_open = |variables: &[(&str, &str)]| {
        let output = opens(variables);
        assert!(output.contains("opened: 1"), "{variables:?}: {output}");
    };
    let none = opens(&[]);
    assert!(none.contains("failed: Denied") && none.contains("AWS_ACCESS_KEY_ID"), "{none}");
    is_open(&[("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)]);
    let boto = home.path().join("boto");
    fs::write(&boto, profile("Credentials", KEY_ID)).unwrap();
    is_open(&[("BOTO_CONFIG", boto.to_str().unwrap())]);
    fs::rename(&boto, home.path().join(".boto")).unwrap();
    is_open(&[]);
    // Credentials of AWS's own chain take precedence over boto's files.
    let wrong = opens(&[("AWS_ACCESS_KEY_ID", "OTHER"), ("AWS_SECRET_ACCESS_KEY", "x")]);
    assert!(wrong.contains("failed: Denied") && !wrong.contains(SECRET), "{wrong}");
    fs::remove_file(home.path().join(".boto")).unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    fs::write(home.path().join(".aws/credentials"), profile("backup", KEY_ID)).unwrap();
    is_open(&[("AWS_PROFILE", "backup")]);
    let missing = opens(&[("AWS_PROFILE", "nobody")]);
    assert!(missing.contains("failed: Denied") && missing.contains("nobody"), "{missing}");
    let json = format!(r#"{{"Version":1,"AccessKeyId":"{KEY_ID}","SecretAccessKey":"{SECRET}"}}"#);
    fs::write(home.path().join("json"), json).unwrap();
    let process = format!("[profile tool]\ncredential_process = cat {}/json\n", home.path().display());
    fs::write(home.path().join(".aws/config"), process).unwrap();
    is_open(&[("AWS_PROFILE", "tool")]);
    let session = "[profile sso]\nsso_session = company\nsso_account_id = 123456789012\nsso_role_name = reader\n\
        [sso-session company]\nsso_region = eu-west-1\nsso_start_url = https://company.example/start\n";
    fs::write(home.path().join(".aws/config"), session).unwrap();
    let refused = opens(&[("AWS_PROFILE", "sso")]);
    assert!(refused.contains("failed: Denied"), "{refused}");
    // With the feature, the SDK looks for the token of `aws sso login`.
    let hint = if cfg!(feature = "sso") { "token" } else { "set credential_process in the profile" };
    assert!(refused.contains(hint), "{refused}");
}

/// A metadata service that refuses everything, as on a machine without a role.
fn refusing_metadata_service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    format!("http://{address}")
}

#[test]
fn the_error_for_a_role_without_credentials_names_the_variables() {
    let home = tempfile::tempdir().unwrap();
    let service = refusing_metadata_service();
    let variables = [
        ("TEST_URL", "s3://127.0.0.1:1/bucket"),
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*service),
    ];
    for (id, found) in [
        (None, "AWS_ACCESS_KEY_ID is not set"),
        (Some(("AWS_ACCESS_KEY_ID", "an-id")), "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"),
    ] {
        let variables: Vec<_> = variables.into_iter().chain(id).collect();
        let output = run_in(home.path(), OPENS, &variables);
        assert!(output.contains("failed: Denied"), "{output}");
        let expected =
            format!("no credentials: {found}, ~/.aws has no profile, and this machine's role gives none (403");
        assert!(
            output.contains(&expected) && output.contains("; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            "{output}"
        );
    }
}

#[test]
fn an_expired_session_is_renewed_from_the_current_profile() {
    if is_child() {
        return renew_from_the_changed_file();
    }
    let home = tempfile::tempdir().unwrap();
    let test_dir = crate::support::s3::rclone().parent().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let output = run_in(
        home.path(),
        "an_expired_session_is_renewed_from_the_current_profile",
        &[("DUPFS_TEST_DIR", test_dir.to_str().unwrap())],
    );
    assert!(output.contains("read: hello with NEWKEY"), "{output}");
}

#[test]
fn a_certificate_is_refused_unless_it_is_trusted() {
    let home = tempfile::tempdir().unwrap();
    let (key, cert) = (home.path().join("key"), home.path().join("cert"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=dupfs test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .args([&key, Path::new("-out"), &cert])
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
    let (key, cert) = (key.to_str().unwrap(), cert.to_str().unwrap());
    let server = S3Server::start_with(&["--cert", cert, "--key", key], "https");
    fs::write(server.bucket().join("o"), "x").unwrap();
    let url = format!("s3://{}/bucket", server.address);
    let keys =
        [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET), ("TEST_TLS", "1"), ("TEST_URL", &url)];
    let start = Instant::now();
    let refused = run_in(home.path(), OPENS, &keys);
    assert!(refused.contains("certificate") && refused.contains("ca-certificates"), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(8), "not retried");
    let trusting: Vec<_> = keys.into_iter().chain([("SSL_CERT_FILE", cert)]).collect();
    let opened = run_in(home.path(), OPENS, &trusting);
    assert!(opened.contains("opened: 1"), "{opened}");
}
