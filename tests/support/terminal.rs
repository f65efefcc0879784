//! Programs on a terminal: their output, and the state of the terminal afterwards.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The result of a program on a terminal.
#[derive(Debug)]
pub struct TerminalRun {
    /// Everything that the terminal showed, with line feeds only.
    pub output: String,
    /// The exit code as in a shell.
    pub code: i64,
    /// True if the terminal echoes and sends signals, as before.
    pub restored: bool,
    /// Seconds from the last text that was typed to the end.
    pub seconds: f64,
}

/// A text to type, once another one was shown.
#[derive(Clone, Debug)]
pub struct TypedStep<'a> {
    pub shown: &'a str,
    pub typed: &'a str,
    /// A file to create then.
    pub created: Option<&'a Path>,
    /// A file to wait for too, before the text is typed.
    pub file: Option<&'a Path>,
}

/// Runs `command` on a new terminal. For each step, waits for the first text and types the second.
pub fn on_terminal(command: &Command, steps: &[(&str, &str)]) -> TerminalRun {
    let steps: Vec<_> =
        steps.iter().map(|&(shown, typed)| TypedStep { shown, typed, created: None, file: None }).collect();
    on_terminal_by_steps(command, &steps)
}

/// Runs `command` on a new terminal, and types the texts of `steps`.
pub fn on_terminal_by_steps(command: &Command, steps: &[TypedStep<'_>]) -> TerminalRun {
    let text = |value: &std::ffi::OsStr| value.to_str().unwrap().to_owned();
    let mut unset: Vec<String> = Vec::new();
    // No progress is shown on a terminal without a name.
    let mut set = vec!["TERM=xterm".to_owned()];
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => set.push(format!("{}={}", text(name), text(value))),
            None => unset.push(format!("--unset={}", text(name))),
        }
    }
    let mut argv = vec!["env".to_owned()];
    argv.extend(unset);
    argv.extend(set);
    argv.push(text(command.get_program()));
    argv.extend(command.get_args().map(text));
    let cwd = command.get_current_dir().map(Path::to_owned);
    let steps: Vec<_> = steps.iter().map(|step| json!([step.shown, step.typed, step.created, step.file])).collect();
    let task = json!({ "argv": argv, "cwd": cwd, "steps": steps });
    let mut script = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/terminal.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3, which scripts/test installs");
    script.stdin.take().unwrap().write_all(task.to_string().as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    TerminalRun {
        output: report["output"].as_str().unwrap().replace("\r\n", "\n"),
        code: report["code"].as_i64().unwrap(),
        restored: report["echo"] == true && report["signals"] == true,
        seconds: report["seconds"].as_f64().unwrap(),
    }
}
