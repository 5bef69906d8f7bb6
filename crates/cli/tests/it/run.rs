//! Runs the binary.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run left behind.
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `antiphon` with these arguments.
pub(crate) fn antiphon<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Run {
    antiphon_reading(b"", arguments)
}

/// Runs `antiphon` with these bytes on standard input.
pub(crate) fn antiphon_reading<S: AsRef<std::ffi::OsStr>>(stdin: &[u8], arguments: &[S]) -> Run {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    // A command that does not read its input closes the pipe: not an error of the test.
    let _ = child.stdin.take().expect("piped").write_all(stdin);
    let output = child.wait_with_output().expect("the child was started");
    let run = Run {
        status: output.status.code().expect("the command was not killed"),
        stdout: String::from_utf8(output.stdout).expect("results are UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("messages are UTF-8"),
    };
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run
}

pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    command.args(arguments);
    command
}

impl Run {
    /// Standard output of a run that did what it was asked.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self.stdout
    }

    /// The one JSON value of a run that did what it was asked.
    pub(crate) fn json(self) -> Value {
        let stdout = self.done();
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        serde_json::from_str(&stdout).expect("one JSON value")
    }

    /// The JSON lines of a run that did what it was asked.
    pub(crate) fn json_lines(self) -> Vec<Value> {
        self.done().lines().map(|line| serde_json::from_str(line).expect("a JSON value a line")).collect()
    }

    /// Standard error of a run that failed as it should: this status, nothing on standard output, the thing named.
    #[track_caller]
    pub(crate) fn refused(self, status: i32, names: &str) -> String {
        assert_eq!(self.status, status, "stdout {:?}, stderr {:?}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        assert!(self.stderr.contains(names), "{:?} does not name {names:?}", self.stderr);
        if status == 1 {
            assert!(self.stderr.starts_with("error: "), "{:?}", self.stderr);
            assert_eq!(self.stderr.lines().count(), 1, "{:?}", self.stderr);
        }
        self.stderr
    }
}

/// A file with this content.
pub(crate) fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("the directory is writable");
    path.to_str().expect("temporary paths are UTF-8").to_owned()
}

/// The folder of a default model.
pub(crate) fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name)
}

/// A copy of a default model, to be spoilt.
pub(crate) fn copy_of_model(name: &str, to: &Path) -> PathBuf {
    let copy = to.join(name);
    std::fs::create_dir(&copy).expect("the directory is writable");
    for entry in std::fs::read_dir(model(name)).expect("the model is in the repository") {
        let entry = entry.expect("the model is in the repository");
        std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("the directory is writable");
    }
    copy
}
