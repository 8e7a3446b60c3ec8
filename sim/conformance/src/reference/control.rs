//! Starts and ends plugin processes: what a service manager does.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::{Instance, Start};

/// How long a process may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

impl Instance {
    /// One of its files.
    pub(super) fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.name))
    }
}

/// Serves in the background, writes the process id down, and waits until the socket can be connected to. Does
/// nothing if it can be, as is wanted of hooks.
pub(super) async fn start(start: &Start) -> Result<String, String> {
    let instance = &start.instance;
    if UnixStream::connect(instance.path("sock")).is_ok() {
        return Ok(format!("{} runs already, and is left as it is\n", instance.name));
    }
    let trouble = |error: std::io::Error| format!("cannot start {}: {error}", instance.name);
    let log = File::options().create(true).append(true).open(instance.path("log"));
    let log = log.map_err(trouble)?;
    let mut command = std::process::Command::new(std::env::current_exe().map_err(trouble)?);
    command.args(["reference", "serve", "--name", &instance.name]).arg("--dir").arg(&instance.dir);
    if let Some(mutant) = instance.mutant {
        command.args(["--mutant", &mutant.name()]);
    }
    if let Some(lifeline) = &instance.lifeline {
        command.arg("--lifeline").arg(lifeline);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(trouble)?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(trouble)?;
    fs::write(instance.path("pid"), child.id().to_string()).map_err(trouble)?;
    let begin = Instant::now();
    while !start.at_once && UnixStream::connect(instance.path("sock")).is_err() {
        let log = instance.path("log");
        if let Some(status) = child.try_wait().map_err(trouble)? {
            return Err(format!("{} ended with {status}; see {}", instance.name, log.display()));
        }
        if begin.elapsed() > PATIENCE {
            let name = &instance.name;
            return Err(format!(
                "{name} does not listen after {PATIENCE:?}; see {}",
                log.display()
            ));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(String::new())
}

/// Sends the signal, and waits for the end; that none runs is no error.
pub(super) async fn end(instance: &Instance, signal: Signal) -> Result<String, String> {
    let Some(pid) = fs::read_to_string(instance.path("pid")).ok().and_then(|pid| pid.parse().ok())
    else {
        return Ok(String::new());
    };
    let sent = kill(Pid::from_raw(pid), signal);
    let gone = async {
        while sent.is_ok() && runs(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, gone).await.is_err() {
        return Err(format!("process {pid} did not end within {PATIENCE:?} after {signal}"));
    }
    let _ = fs::remove_file(instance.path("pid"));
    Ok(String::new())
}

/// Whether the process is there and not a zombie, for whose burial nobody may be there.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Prints what the plugin has logged, byte for byte.
pub(super) fn log(instance: &Instance) -> Result<String, String> {
    let path = instance.path("log");
    let printed = fs::read(&path).and_then(|log| std::io::stdout().write_all(&log));
    printed.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(String::new())
}
