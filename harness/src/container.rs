//! The same program in a container: `HARNESS_RUNTIME=container`.
//!
//! A container is a process of this machine that sees other files. It gets the machine's network and process ids,
//! the test's directory at its own path and the test's user: so all that tests do to a process they do to it, too,
//! by the same ports, signals and `/proc`, and it ends with them in the same way, also when they are killed.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::unistd::{getegid, geteuid};

use crate::poll::eventually;
use crate::{Stage, components};

/// What `ci/image` builds.
const KLEIDI: &str = concat!("kleidi:", env!("CARGO_PKG_VERSION"));

/// A program in a container.
pub(crate) struct Contained {
    /// What runs it, in the foreground: it ends when the program does, with its exit code.
    pub(crate) command: Command,
    /// Of the container.
    pub(crate) name: String,
}

/// `command` in a container, if that is wanted and there is an image of the program (`ci/image`, `ci/part-image`).
pub(crate) fn contained(stage: &Stage, command: &Command) -> Option<Contained> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if std::env::var_os("HARNESS_RUNTIME")? != "container" {
        return None;
    }
    let image = image(command)?;
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("kleidi-test-{}-{number}", std::process::id());
    let directory = stage.path("").display().to_string();
    let mut docker = Command::new("docker");
    docker.args([
        "run",
        "--rm",
        "--read-only",
        "--name",
        &name,
        "--network",
        "host",
        "--pid",
        "host",
    ]);
    docker.args(["--user", &format!("{}:{}", geteuid(), getegid()), "--cap-add", "IPC_LOCK"]);
    docker.args(["--volume", &format!("{directory}:{directory}")]);
    for (variable, value) in command.get_envs() {
        if let Some(value) = value {
            let (variable, value) = (variable.to_string_lossy(), value.to_string_lossy());
            docker.args(["--env", &format!("{variable}={value}")]);
        }
    }
    docker.arg(image).args(command.get_args());
    Some(Contained { command: docker, name })
}

/// The image that has this program as its entry point; none for what belongs to the tests themselves.
fn image(command: &Command) -> Option<String> {
    let scripted = command.get_envs().any(|(name, _)| name == "PKCS11_SHIM_MODULE");
    match Path::new(command.get_program()).file_name().and_then(OsStr::to_str)? {
        "kleidi" if !scripted => {
            Some(std::env::var("KLEIDI_IMAGE").unwrap_or_else(|_| KLEIDI.to_owned()))
        }
        "bao" => Some(format!("kleidi-openbao:{}", components::OPENBAO)),
        "vault" => Some(format!("kleidi-vault:{}", components::VAULT)),
        _ => None,
    }
}

impl Contained {
    /// The process id of the program, once it runs; that of `child`, if it has ended already.
    ///
    /// # Panics
    ///
    /// If it does neither in a minute.
    pub(crate) fn pid(&self, child: &mut Child) -> u32 {
        eventually(&format!("the container {}", self.name), || {
            let mut inspect = Command::new("docker");
            inspect.args(["inspect", "--format", "{{.State.Pid}}", &self.name]);
            let output = inspect.output().map_err(|error| error.to_string())?;
            let printed = String::from_utf8_lossy(&output.stdout);
            match printed.trim().parse() {
                Ok(pid) if pid > 0 => Ok(pid),
                _ if matches!(child.try_wait(), Ok(Some(_))) => Ok(child.id()),
                _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        })
    }
}
