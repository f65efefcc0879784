//! `scripts/test-runner` ends a test that takes too long, by its name.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::tree;

/// Runs a shell script as a test program under the runner, with a limit of `seconds`. Returns its output and exit code.
fn run(seconds: &str, script: &str) -> (String, Option<i32>) {
    let mut command = Command::new(tree::root().join("scripts/test-runner"));
    command.args(["sh", "-c", script]).env("DUPFS_TEST_TIMEOUT", seconds).env_remove("DUPFS_TEST_AS_ROOT");
    // Where the runner unmounts. The mounts of tests that run at the same time are elsewhere.
    command.env("TMPDIR", std::env::temp_dir().join("without-mounts"));
    let output = command.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn output_and_exit_code_are_those_of_the_program() {
    let script = "echo running 2 tests; echo 'test a ... ok'; echo 'test b ... FAILED'; printf end; exit 101";
    let expected = "running 2 tests\ntest a ... ok\ntest b ... FAILED\nend";
    assert_eq!(run("60", script), (expected.to_owned(), Some(101)));
}

#[test]
fn a_late_test_that_ends_in_time_passes() {
    let script = "echo 'test a has been running for over 60 seconds'; sleep 2; echo 'test a ... ok'";
    let (output, code) = run("90", script);
    assert!(output.ends_with("test a ... ok\n"), "{output}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_test_that_hangs_fails_by_name() {
    let start = Instant::now();
    let script = "echo running 4 tests; echo 'test a ... ok'; echo 'test m::b has been running for over 60 seconds'; \
        echo 'test c has been running for over 60 seconds'; echo 'test c ... ok'; sleep 600 & sleep 601";
    let (output, code) = run("62", script);
    assert!(output.contains("\ntest m::b ... FAILED (not done after 62 seconds"), "{output}");
    assert!(!output.contains("test c ... FAILED"), "{output}");
    // Processes that the test started are shown, and killed.
    assert!(output.contains("sleep 600") && output.contains("sleep 601"), "{output}");
    assert!(output.ends_with("test result: FAILED. 2 passed; 1 failed; 1 not run or not done\n"), "{output}");
    assert_eq!(code, Some(137));
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_single_test_that_hangs_fails_by_name() {
    let (output, code) = run("2", "echo running 1 test; printf 'test only ... '; sleep 600");
    assert!(output.contains("\ntest only ... FAILED (not done after 2 seconds"), "{output}");
    assert_eq!(code, Some(137));
}

#[test]
fn a_daemon_that_holds_the_output_is_not_waited_for() {
    let start = Instant::now();
    let (output, code) = run("60", "echo 'test result: ok. 0 passed; 0 failed'; setsid sleep 20 2>/dev/null & exit 0");
    assert_eq!((output.as_str(), code), ("test result: ok. 0 passed; 0 failed\n", Some(0)));
    assert!(start.elapsed() < Duration::from_secs(15));
}
