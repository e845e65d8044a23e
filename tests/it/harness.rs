//! Runs the real program with a clean environment, and shows everything if an expectation fails.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder with the tests' own checkpoints and reference values.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A call of the program that is being prepared.
pub struct Agnews {
    command: Command,
    stdin: Vec<u8>,
    /// Holds HF_HOME, unless a test sets its own.
    home: tempfile::TempDir,
}

/// The outcome of a call.
pub struct Outcome {
    shown: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// `agnews -m builtin`, the call used by most tests.
pub fn builtin() -> Agnews {
    agnews().args(["-m", "builtin"])
}

/// `agnews` without arguments.
pub fn agnews() -> Agnews {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_agnews"));
    command.env_clear().env("HF_HOME", home.path()).env("HOME", home.path());
    // Tests without network access would find nothing there if they tried.
    command.env("HF_ENDPOINT", "http://127.0.0.1:9");
    Agnews { command, stdin: Vec::new(), home }
}

impl Agnews {
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Agnews {
        self.args([arg])
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Agnews {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Agnews {
        self.command.env(name, value);
        self
    }

    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Agnews {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// For tests that interact with the running program: its command, to spawn as needed, and the folder to keep.
    pub fn into_command(self) -> (Command, tempfile::TempDir) {
        (self.command, self.home)
    }

    /// Runs to the end.
    pub fn run(mut self) -> Outcome {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = std::mem::take(&mut self.stdin);
        let feeder = std::thread::spawn(move || {
            // The program may exit before it has read everything.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        let stdout = String::from_utf8(output.stdout).expect("standard output is UTF-8");
        let stderr = String::from_utf8(output.stderr).expect("standard error is UTF-8");
        let code = output.status.code();
        let shown = format!("{:?}\nstatus: {}\nstdout:\n{stdout}\nstderr:\n{stderr}", self.command, output.status);
        Outcome { shown, code, stdout, stderr }
    }

    /// Runs, expects exit code 0 and nothing on standard error, and returns standard output.
    pub fn quiet_success(self) -> String {
        let outcome = self.run().success();
        assert_eq!(outcome.stderr, "", "{}", outcome.shown);
        outcome.stdout
    }
}

impl Outcome {
    pub fn success(self) -> Outcome {
        self.code_is(0)
    }

    pub fn code_is(self, code: i32) -> Outcome {
        assert_eq!(self.code, Some(code), "{}", self.shown);
        self
    }

    /// Expects these texts on standard error.
    pub fn tells(self, parts: &[&str]) -> Outcome {
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} on standard error\n{}", self.shown);
        }
        self
    }

    /// Expects this text nowhere in the output.
    pub fn hides(self, secret: &str) -> Outcome {
        assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "{}", self.shown);
        self
    }

    /// Expects these texts on standard output.
    pub fn prints_parts(self, parts: &[&str]) -> Outcome {
        for part in parts {
            assert!(self.stdout.contains(part), "no {part:?} on standard output\n{}", self.shown);
        }
        self
    }

    /// Expects exactly this standard output.
    pub fn prints(self, stdout: &str) -> Outcome {
        assert_eq!(self.stdout, stdout, "{}", self.shown);
        self
    }
}
