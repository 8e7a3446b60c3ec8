//! A correct KMS v2 plugin, independent of any product, that shows that the checks pass; and its mutants,
//! which show that they fail.
//!
//! Its keys lie in a directory, in clear: it is for trying the suite out, never for a cluster. What hooks
//! do to a plugin, commands do to it ([`control`]).

mod control;
mod faulty;
mod keyring;
pub mod mutant;
mod plugin;
mod server;

use std::path::PathBuf;

use keyring::{Flag, Keyring};
use mutant::Fault;

/// What can be done with a reference plugin.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Serve on DIR/NAME.sock until SIGTERM.
    Serve(Instance),
    /// Serve in the background, unless it runs, and wait until it listens; the log is DIR/NAME.log.
    Start(Start),
    /// SIGTERM, and wait for the end.
    Stop(Instance),
    /// SIGKILL, and wait for the end.
    Kill(Instance),
    /// Print the log.
    Log(Instance),
    /// Make a new key the current one.
    Rotate(Keys),
    /// Make a new key of the material before the last rotation.
    RotateBack(Keys),
    /// The KMS is away.
    Down(Keys),
    /// The KMS is there.
    Up(Keys),
    /// Decrypting is forbidden.
    Deny(Keys),
    /// Decrypting is allowed.
    Allow(Keys),
}

/// A plugin process.
#[derive(Debug, Clone, clap::Args)]
pub struct Instance {
    /// Directory of the keyring, the sockets and the logs.
    #[arg(long, value_parser = directory)]
    pub dir: PathBuf,
    /// Which of several plugins with this keyring.
    #[arg(long, default_value = "a")]
    pub name: String,
    /// How it is broken.
    #[arg(long)]
    pub mutant: Option<Fault>,
    /// A FIFO; the process ends when nobody has it open for writing.
    #[arg(long, value_name = "FIFO")]
    pub lifeline: Option<PathBuf>,
}

/// A plugin process that is to begin.
#[derive(Debug, Clone, clap::Args)]
pub struct Start {
    /// Which.
    #[command(flatten)]
    pub instance: Instance,
    /// Do not wait, whatever becomes of it.
    #[arg(long, hide = true)]
    pub at_once: bool,
}

/// A keyring.
#[derive(Debug, Clone, clap::Args)]
pub struct Keys {
    /// Its directory.
    #[arg(long, value_parser = directory)]
    pub dir: PathBuf,
}

/// Carries the command out; gives what is to be printed.
pub async fn run(command: Command) -> Result<String, String> {
    match command {
        Command::Serve(instance) => server::run(instance).await.map(|()| String::new()),
        Command::Start(start) => control::start(&start).await,
        Command::Stop(instance) => control::end(&instance, nix::sys::signal::Signal::SIGTERM).await,
        Command::Kill(instance) => control::end(&instance, nix::sys::signal::Signal::SIGKILL).await,
        Command::Log(instance) => control::log(&instance),
        Command::Rotate(keys) => change(&keys, Keyring::rotate),
        Command::RotateBack(keys) => change(&keys, Keyring::rotate_back),
        Command::Down(keys) => change(&keys, |ring| ring.set(Flag::Outage, true)),
        Command::Up(keys) => change(&keys, |ring| ring.set(Flag::Outage, false)),
        Command::Deny(keys) => change(&keys, |ring| ring.set(Flag::DecryptDenied, true)),
        Command::Allow(keys) => change(&keys, |ring| ring.set(Flag::DecryptDenied, false)),
    }
}

fn change(
    keys: &Keys,
    change: impl FnOnce(&Keyring) -> std::io::Result<()>,
) -> Result<String, String> {
    let changed = Keyring::open(&keys.dir).and_then(|ring| change(&ring));
    changed.map(|()| String::new()).map_err(|error| format!("{}: {error}", keys.dir.display()))
}

/// The path of a directory that is there.
fn directory(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.is_dir() {
        Ok(path)
    } else {
        Err("it is no directory; make it with mkdir -m 700".to_owned())
    }
}
