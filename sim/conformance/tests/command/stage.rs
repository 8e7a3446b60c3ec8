//! A reference plugin for one test, and the command run against it.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::stat::Mode;
use tempfile::TempDir;
use tokio::time::Instant;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it holds; otherwise `what` is said.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// The command, with no argument yet.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kms-conformance"));
    command.env_remove("CI");
    command
}

/// The command with these arguments, run to its end.
pub fn run(args: &[&str]) -> Ended {
    command().args(args).output().expect("the command can be run").into()
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    /// Standard output.
    pub said: String,
    /// Standard error.
    pub complained: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, said: text(&output.stdout), complained: text(&output.stderr) }
    }
}

/// A directory, and the plugins that run in it.
pub struct Stage {
    directory: TempDir,
    plugins: Vec<Child>,
    /// The reference plugins end when this does, however the test ends.
    _lifeline: File,
}

impl Stage {
    /// With no plugin yet.
    pub fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("lifeline");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let lifeline = File::options().read(true).write(true).open(fifo).unwrap();
        Self { directory, plugins: Vec::new(), _lifeline: lifeline }
    }

    /// With the reference plugin, or a mutant of it, on the socket `a.sock`.
    pub fn reference(mutant: Option<&str>) -> Self {
        let mut stage = Self::empty();
        let mut command = command();
        command.args(["reference", "serve", "--dir"]).arg(stage.directory.path());
        command.arg("--lifeline").arg(stage.path("lifeline"));
        if let Some(mutant) = mutant {
            command.args(["--mutant", mutant]);
        }
        stage.serve(command, "a.sock");
        stage
    }

    /// Starts a plugin, and waits until its socket can be connected to.
    pub fn serve(&mut self, mut command: Command, socket: &str) {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let log = File::create(self.path(&format!("{socket}.log"))).unwrap();
        self.plugins.push(command.stderr(log).spawn().expect("the plugin can be started"));
        let path = self.path(socket);
        let plugin = self.plugins.last_mut().unwrap();
        let begin = Instant::now();
        while let Err(error) = UnixStream::connect(&path) {
            let ended: Option<ExitStatus> = plugin.try_wait().unwrap();
            assert!(ended.is_none(), "the plugin ended: {ended:?}");
            assert!(begin.elapsed() < PATIENCE, "{}: {error}", path.display());
            std::thread::yield_now();
        }
    }

    /// Ends the plugins; their sockets' files stay.
    pub fn kill(&mut self) {
        for mut plugin in self.plugins.drain(..) {
            let _ = plugin.kill();
            let _ = plugin.wait();
        }
    }

    /// A file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file in the directory with this content.
    pub fn file(&self, name: &str, content: &str) -> String {
        fs::write(self.path(name), content).unwrap();
        text(&self.path(name))
    }

    /// What a file in the directory has in it.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A command for a hook that does this to the reference plugin.
    pub fn hook(&self, action: &str) -> String {
        let (binary, directory) = (env!("CARGO_BIN_EXE_kms-conformance"), self.directory.path());
        format!("'{binary}' reference {action} --dir '{}'", directory.display())
    }

    /// Checks the plugin on `a.sock`.
    pub fn check(&self, args: &[&str]) -> Ended {
        self.check_at("a.sock", args)
    }

    /// Checks the plugin on this socket.
    pub fn check_at(&self, socket: &str, args: &[&str]) -> Ended {
        let endpoint = format!("unix://{}", self.path(socket).display());
        run(&[&["--endpoint", &endpoint], args].concat())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
