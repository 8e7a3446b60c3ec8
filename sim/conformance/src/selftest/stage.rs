//! Two reference plugins with one keyring, in a directory of their own, and the hooks for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::catalogue;
use crate::check::Profile;
use crate::client::{Client, describe};
use crate::context::{Load, Polls, Settings};
use crate::endpoint::Endpoint;
use crate::hooks::{Hook, Hooks};
use crate::interruption::Interruption;
use crate::reference::mutant::Fault;
use crate::report::{Implementation, Report, Selection};
use crate::runner::{self, Plan};

/// Long for a reference plugin, short for those who wait; the mutants that are slow are chosen around
/// these (`reference/faulty.rs`).
const ROTATION_WINDOW: Duration = Duration::from_secs(3);
const OUTAGE_WINDOW: Duration = Duration::from_secs(4);
const POLLS: Polls =
    Polls { healthy: Duration::from_millis(1000), unhealthy: Duration::from_millis(1000) };

/// How long they may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The plugins run until it is dropped.
pub(super) struct Stage {
    directory: TempDir,
    binary: PathBuf,
    fault: Option<Fault>,
    /// The plugins end when this does, however this process ends.
    _lifeline: File,
}

impl Stage {
    /// Starts them, and waits until they accept connections.
    pub(super) async fn start(binary: &Path, fault: Option<Fault>) -> Result<Self, String> {
        let trouble = |error: std::io::Error| format!("cannot set the stage: {error}");
        let directory = tempfile::tempdir().map_err(trouble)?;
        let fifo = directory.path().join("lifeline");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| trouble(e.into()))?;
        // Both, or opening it would wait for a reader.
        let lifeline = File::options().read(true).write(true).open(&fifo).map_err(trouble)?;
        let stage = Self { directory, binary: binary.to_owned(), fault, _lifeline: lifeline };
        let hooks = Hooks::new(
            [(Hook::Start, stage.command("start", "a") + " && " + &stage.command("start", "b"))]
                .into(),
            BTreeMap::new(),
            Duration::from_secs(60),
        );
        hooks.run(Hook::Start).await?;
        for endpoint in stage.endpoints()? {
            stage.up(&endpoint).await?;
        }
        Ok(stage)
    }

    /// Waits until Status is answered; some mutants never do, and are taken as they are.
    async fn up(&self, endpoint: &Endpoint) -> Result<(), String> {
        let never = [Fault::SpeaksNoHttp2, Fault::AnswersNotFound, Fault::RefusesLocalhost];
        let begin = Instant::now();
        loop {
            let seen = match Client::connect(endpoint, PATIENCE).await {
                Ok(_) if self.fault.is_some_and(|fault| never.contains(&fault)) => return Ok(()),
                Ok(client) => match client.status().await {
                    Ok(_) => return Ok(()),
                    Err(status) => describe(&status),
                },
                Err(error) => error,
            };
            if begin.elapsed() > PATIENCE {
                return Err(format!("{endpoint} did not come up within {PATIENCE:?}: {seen}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, String> {
        ["a", "b"].map(|name| self.path(&format!("{name}.sock")).parse()).into_iter().collect()
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// A command for a hook.
    fn command(&self, action: &str, name: &str) -> String {
        let (binary, directory) =
            (quoted(&self.binary.display().to_string()), quoted(&self.path("")));
        let mut command = format!("{binary} reference {action} --dir {directory}");
        if ["start", "stop", "kill", "log"].contains(&action) {
            let _ = write!(command, " --name {name}");
        }
        if action == "start" {
            // Some mutants do not come up, which is for a check to find out.
            let _ = write!(command, " --at-once --lifeline {}", quoted(&self.path("lifeline")));
            if let Some(fault) = self.fault {
                let _ = write!(command, " --mutant {}", fault.name());
            }
        }
        command
    }

    fn hooks(&self) -> Hooks {
        let commands = [
            (Hook::Rotate, "rotate"),
            (Hook::RotateBack, "rotate-back"),
            (Hook::Stop, "stop"),
            (Hook::Start, "start"),
            (Hook::Kill, "kill"),
            (Hook::BackendDown, "down"),
            (Hook::BackendUp, "up"),
            (Hook::DenyDecrypt, "deny"),
            (Hook::AllowDecrypt, "allow"),
            (Hook::PrintLog, "log"),
        ];
        let commands = commands.map(|(hook, action)| (hook, self.command(action, "a")));
        Hooks::new(commands.into(), BTreeMap::new(), Duration::from_secs(60))
    }

    /// Runs all checks; with the full load, or a lighter one that shows the same.
    pub(super) async fn run(self, seed: u64, full: bool) -> Report {
        let light = Load {
            parallel: 16,
            rounds: 3,
            statuses: 100,
            cancelled: 96,
            samples: 80,
            annotations: 2000,
        };
        let settings = Settings {
            endpoints: self.endpoints().unwrap_or_default(),
            timeout: Duration::from_secs(3),
            rotation_window: ROTATION_WINDOW,
            outage_window: OUTAGE_WINDOW,
            polls: POLLS,
            load: if full { Load::default() } else { light },
            hooks: self.hooks(),
        };
        let plan = Plan {
            checks: catalogue::all().collect(),
            selection: Selection { profiles: Profile::ALL.to_vec(), run: Vec::new() },
            skipped: Vec::new(),
            settings,
            implementation: Implementation::default(),
            reproduce: String::new(),
            known_failing: BTreeMap::new(),
            strict: true,
            seed,
            jobs: 1,
            quiet: true,
        };
        runner::run(plan, Interruption::after(Duration::from_secs(600))).await
    }
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
