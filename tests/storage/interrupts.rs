//! Signals to a command whose output is not read.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::s3::world::eventually;
use crate::support::exec::Dupfs;
use crate::support::{Scratch, fixtures};

#[test]
fn the_second_signal_ends_a_command_that_waits_for_the_reader_of_its_output() {
    let limit = Duration::from_secs(60);
    for signal in [Signal::INT, Signal::TERM] {
        let scratch = Scratch::new();
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let mut full = File::from(writer);
        while full.write(&[0; 4096]).is_ok() {}
        while full.write(&[0]).is_ok() {}
        fcntl_setfl(&full, OFlags::empty()).unwrap();
        let mut command = Dupfs::new(scratch.path()).option("--no-index").command("verify");
        command.arg(fixtures::url("duplicity-0.7.13-gz")).stdout(full).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let wchan = format!("/proc/{}/wchan", child.id());
        eventually("it waits for the reader", limit, || fs::read_to_string(&wchan).unwrap().contains("pipe_write"));
        eventually("it ends", limit, || {
            kill_process(Pid::from_child(&child), signal).unwrap();
            child.try_wait().unwrap().is_some()
        });
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal:?}");
        drop(reader);
    }
}
