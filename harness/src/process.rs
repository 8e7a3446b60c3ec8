//! A child process with its logs.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::poll::{PATIENCE, eventually, within};
use crate::{Stage, container, guard};

/// A running process; killed when dropped, and when this process ends, however it ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Of the program: not that of `child`, if it is in a container.
    pid: u32,
    container: Option<String>,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; what it prints goes to `<name>.log` on the stage, behind what is there.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(stage: &Stage, name: &str, command: &mut Command) -> Self {
        let log = stage.path(&format!("{name}.log"));
        let mut contained = container::contained(stage, command);
        let name_of_it = contained.as_ref().map(|contained| contained.name.clone());
        // Before there is one: it may be there before we hear of it.
        name_of_it.iter().for_each(guard::watch);
        let command = contained.as_mut().map_or(command, |contained| &mut contained.command);
        let mut spawn = || -> io::Result<Child> {
            let out = File::options().create(true).append(true).open(&log)?;
            command
                .stdin(Stdio::null())
                .stdout(out.try_clone()?)
                .stderr(out)
                // A signal to the tests' terminal must not end it before the test has seen why.
                .process_group(0)
                .spawn()
        };
        match spawn() {
            Ok(mut child) => {
                guard::watch(child.id());
                let pid = contained.map_or(child.id(), |contained| contained.pid(&mut child));
                Self { name: name.to_owned(), child, pid, container: name_of_it, log, status: None }
            }
            Err(error) => panic!("cannot start {name} ({command:?}): {error}"),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// All it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
            if self.status.is_some() {
                self.unguard();
            }
        }
        self.status
    }

    fn unguard(&self) {
        guard::release(self.child.id());
        self.container.iter().for_each(guard::release);
    }

    /// Sends a signal; that it has ended already is no error.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.pid) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// SIGSTOP, and waits until none of its threads runs any more: `kill` returns before that, and a
    /// server of many threads answers meanwhile. SIGCONT lets it go on.
    ///
    /// # Panics
    ///
    /// If it does not stop, or has ended.
    pub fn hang(&self) {
        let describe = |error: io::Error| error.to_string();
        self.signal(Signal::SIGSTOP);
        eventually(&format!("{} to stand still", self.name), || {
            for thread in fs::read_dir(format!("/proc/{}/task", self.pid())).map_err(describe)? {
                let status = thread.map_err(describe)?.path().join("status");
                let status = fs::read_to_string(status).map_err(describe)?;
                if !status.lines().any(|line| line.starts_with("State:\tT")) {
                    return Err(status);
                }
            }
            Ok(())
        });
    }

    /// Waits for its end: the exit code, or 128 and the signal.
    ///
    /// # Panics
    ///
    /// If it does not end within a minute.
    pub fn wait(&mut self) -> i32 {
        let what = format!("the end of {}", self.name);
        let status = eventually(&what, || self.ended().ok_or_else(|| "it runs".to_owned()));
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> i32 {
        self.signal(Signal::SIGKILL);
        self.wait()
    }

    /// Lets it run on after this process has ended.
    pub fn leave_running(self) {
        self.unguard();
        std::mem::forget(self);
    }

    /// Waits until `ready` gives a value.
    ///
    /// # Panics
    ///
    /// With the end of its log, if it ends first or is not ready in a minute.
    pub fn wait_ready<T>(&mut self, ready: impl FnMut() -> Result<T, String>) -> T {
        self.wait_ready_within(PATIENCE, ready)
    }

    /// The same for another time than a minute.
    ///
    /// # Panics
    ///
    /// With the end of its log, if it ends first or is not ready in time.
    pub fn wait_ready_within<T>(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut() -> Result<T, String>,
    ) -> T {
        let what = format!("{} to be ready", self.name);
        within(patience, &what, || {
            if let Some(status) = self.ended() {
                panic!("{} ended ({status}):\n{}", self.name, tail(&self.log()));
            }
            ready().map_err(|seen| format!("{seen}\n{}", tail(&self.log())))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // A stopped process gets it, too.
            self.signal(Signal::SIGKILL);
        }
        let _ = self.child.wait();
        self.unguard();
    }
}

fn tail(log: &str) -> &str {
    let start = log.len().saturating_sub(3000);
    let start = (start..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
    &log[start..]
}
