//! What no protocol can ask of a plugin is done by commands that the operator gives.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

mod owed;

use owed::Owed;

/// An event that a command brings about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Makes a new key the current one.
    Rotate,
    /// Makes the material before the last rotation the current one again.
    RotateBack,
    /// Ends the plugin's process as a service manager does.
    Stop,
    /// Starts it; need not wait.
    Start,
    /// Ends it without warning.
    Kill,
    /// Takes the KMS away from the plugin, which goes on running.
    BackendDown,
    /// Gives it back; ends when the KMS serves again.
    BackendUp,
    /// Forbids the plugin to decrypt, and nothing else.
    DenyDecrypt,
    /// Allows it again.
    AllowDecrypt,
    /// Prints all that the plugin has logged.
    PrintLog,
}

impl Hook {
    /// The flag that gives its command, without dashes.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Rotate => "on-rotate",
            Self::RotateBack => "on-rotate-back",
            Self::Stop => "on-stop",
            Self::Start => "on-start",
            Self::Kill => "on-kill",
            Self::BackendDown => "on-backend-down",
            Self::BackendUp => "on-backend-up",
            Self::DenyDecrypt => "on-deny-decrypt",
            Self::AllowDecrypt => "on-allow-decrypt",
            Self::PrintLog => "print-log",
        }
    }
}

/// The commands, and how long each may take.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    commands: BTreeMap<Hook, String>,
    environment: BTreeMap<&'static str, String>,
    timeout: Duration,
    owed: Owed,
}

impl Hooks {
    /// `environment` is what the commands are told, beside what this process has.
    #[must_use]
    pub fn new(
        commands: BTreeMap<Hook, String>,
        environment: BTreeMap<&'static str, String>,
        timeout: Duration,
    ) -> Self {
        Self { commands, environment, timeout, owed: Owed::default() }
    }

    /// Whether there is a command for it.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.commands.contains_key(&hook)
    }

    /// Calls what undoes the hooks that were called and not undone; says what it did.
    ///
    /// An error says what is left undone; another call tries it again.
    pub async fn undo(&self) -> Result<Vec<String>, String> {
        let mut done = Vec::new();
        for (undo, hook) in self.owed.all() {
            let (undo_flag, flag) = (undo.flag(), hook.flag());
            match self.run(undo).await {
                Ok(_) => done.push(format!("--{undo_flag} was called to undo --{flag}")),
                Err(error) => {
                    return Err(format!(
                        "it is left as --{flag} made it, undo it by hand: {error}"
                    ));
                }
            }
        }
        Ok(done)
    }

    /// Runs the command in a shell, and gives what it printed.
    ///
    /// An error says which hook failed, how, and what it printed; not the command, which may have secrets
    /// in it. A process that the command leaves in the background is not waited for. If the call is
    /// dropped, the command and what it has started are killed.
    pub async fn run(&self, hook: Hook) -> Result<Vec<u8>, String> {
        let flag = hook.flag();
        let command = self.commands.get(&hook).ok_or_else(|| format!("--{flag} is not given"))?;
        let trouble = |error: std::io::Error| format!("--{flag}: cannot run the command: {error}");
        self.owed.begins(hook);
        // A file and no pipe: a daemon that the command starts may keep its end open for ever.
        let mut file = tempfile::tempfile().map_err(trouble)?;
        let mut child = tokio::process::Command::new("sh")
            .arg("-c")
            .arg(command)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(trouble)?)
            .stderr(file.try_clone().map_err(trouble)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(trouble)?;
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
        let ended = tokio::time::timeout(self.timeout, child.wait()).await;
        let mut output = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut output)).map_err(trouble)?;
        let printed = String::from_utf8_lossy(&output);
        if ended.is_ok() {
            // What it has left in the background is meant to be there.
            group.0 = None;
        }
        match ended {
            Ok(Ok(status)) if status.success() => {
                self.owed.ended(hook);
                Ok(output)
            }
            Ok(Ok(status)) => Err(format!("--{flag} ended with {status}; it printed: {printed}")),
            Ok(Err(error)) => Err(trouble(error)),
            Err(_) => {
                let limit = humantime::format_duration(self.timeout);
                Err(format!("--{flag} did not end within {limit}; it printed: {printed}"))
            }
        }
    }
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(command: &str, timeout: Duration) -> Result<Vec<u8>, String> {
        let hooks = Hooks::new(
            [(Hook::Rotate, command.to_owned())].into(),
            [("KMS_CONFORMANCE_ENDPOINT", "unix:///x".to_owned())].into(),
            timeout,
        );
        hooks.run(Hook::Rotate).await
    }

    #[tokio::test]
    async fn a_hook_has_the_endpoint_and_its_output_is_kept() {
        let minute = Duration::from_secs(60);
        let printed = run("echo $KMS_CONFORMANCE_ENDPOINT; echo e >&2", minute).await;
        assert_eq!(printed.unwrap(), b"unix:///x\ne\n");
        let error = run("echo why; exit 7", minute).await.unwrap_err();
        assert!(error.contains("--on-rotate") && error.contains("exit status: 7"), "{error}");
        assert!(error.contains("why"), "{error}");
    }

    #[tokio::test]
    async fn what_it_leaves_in_the_background_is_not_waited_for() {
        let begin = tokio::time::Instant::now();
        assert_eq!(
            run("sleep 20 & echo started", Duration::from_secs(60)).await.unwrap(),
            b"started\n"
        );
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_hook_that_hangs_is_an_error() {
        let error = run("sleep 20", Duration::from_millis(50)).await.unwrap_err();
        assert!(error.contains("did not end within 50ms"), "{error}");
    }
}
