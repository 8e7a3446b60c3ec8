//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};

mod args;
mod check;
mod init;
mod serve;
mod status;
#[cfg(test)]
mod tests;

use crate::backend::pkcs11::Pkcs11;
use crate::backend::transit::Transit;
use crate::backend::{Backend, BackendError, ErrorKind};
use crate::config::{Kms, LogFormat, LogLevel};
use crate::hardening;
use crate::random::OsRandom;
use crate::socket::Address;

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// Something failed that should not: a bug, or the machine.
    Failure = 1,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// A key or what it wrote is damaged (`EX_DATAERR`).
    Damaged = 65,
    /// The KMS, or the plugin that was asked, is not available: trying again later can help
    /// (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// The socket cannot be had (`EX_CANTCREAT`).
    Socket = 73,
    /// The configuration, or what it points at, is wrong: trying again cannot help (`EX_CONFIG`).
    Config = 78,
}

impl From<&BackendError> for Exit {
    fn from(error: &BackendError) -> Self {
        match error.kind {
            ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Overloaded
            | ErrorKind::TooLarge => Self::Unavailable,
            ErrorKind::KeyNotFound | ErrorKind::Credentials | ErrorKind::Misconfigured => {
                Self::Config
            }
            ErrorKind::BadCiphertext | ErrorKind::KeyDamaged => Self::Damaged,
        }
    }
}

/// Version and, where the build was told, commit.
const VERSION: &str = match option_env!("KLEIDI_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

const EXIT_CODES: &str = "\
Exit codes:
   0  all went well; serve: ended by SIGTERM or SIGINT
   1  something failed that should not
  64  the command line is wrong
  65  a key, or what it wrote, is damaged
  69  the KMS, or the plugin that was asked, is not available: try again later
  73  the socket cannot be had: in use, or its directory is not safe
  78  the configuration is wrong: trying again cannot help";

/// Kubernetes KMS v2 plugin for operators without a cloud KMS.
#[derive(Debug, Parser)]
#[command(
    name = "kleidi",
    version = VERSION,
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve kube-apiserver until told to stop (the default).
    Serve(ServeArgs),
    /// Create the token, its PINs and a key where they are missing; change nothing that exists.
    Init(InitArgs),
    /// Check the configuration, and with --live the key: wrap, unwrap, tamper.
    Check(CheckArgs),
    /// Ask a running plugin how it is: 0 if it can encrypt, 69 if not.
    Status(StatusArgs),
    /// Print a shell's completions.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Clone, clap::Args)]
struct ConfigArgs {
    /// The configuration, or the Go kleidi's JSON [default: /etc/kleidi/kleidi.yaml].
    // No default for clap: what was named has to be there.
    #[arg(short, long, alias = "configfile", value_name = "FILE", env = "KLEIDI_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where to listen, as in the EncryptionConfiguration: unix:///run/kleidi/kms.sock.
    #[arg(
        long, visible_aliases = ["listen-addr", "listen-address"], value_name = "ADDRESS",
        env = "KLEIDI_LISTEN"
    )]
    listen: Option<Address>,
    /// error, warn, info or debug.
    #[arg(long, value_name = "LEVEL", env = "KLEIDI_LOG_LEVEL", value_parser = args::log_level)]
    log_level: Option<LogLevel>,
    /// text or json.
    #[arg(long, value_name = "FORMAT", env = "KLEIDI_LOG_FORMAT", value_parser = args::log_format)]
    log_format: Option<LogFormat>,
    /// The Go kleidi's flag; only softhsm is known.
    #[arg(long, hide = true, value_parser = args::provider)]
    provider: Option<String>,
    /// The Go kleidi's flag: the same as --log-level debug.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    debugmode: Option<bool>,
}

#[derive(Debug, clap::Args)]
struct InitArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// CKA_ID of the key to have, in hex digits; another one makes a new key, for rotation.
    #[arg(long, value_name = "HEX", value_parser = args::cka_id)]
    cka_id: Option<args::CkaId>,
    /// Where the security officer's PIN is, or is put [default: so-pin beside the PIN file].
    #[arg(long, value_name = "FILE")]
    so_pin_file: Option<PathBuf>,
    /// For transit: print a script for an administrator, with the key, the least policy and the login.
    #[arg(long, conflicts_with_all = ["cka_id", "so_pin_file"])]
    print_policy: bool,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Use the key, too: wrap, unwrap, tamper. Prints what is known of it.
    #[arg(long)]
    live: bool,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    /// The plugin's socket [default: that of the configuration, or /run/kleidi/kms.sock].
    #[arg(long, value_name = "ADDRESS", env = "KLEIDI_LISTEN")]
    socket: Option<Address>,
    /// Where to look for the socket, if it is not named.
    #[command(flatten)]
    config: ConfigArgs,
    /// How long to wait for an answer.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// How the parts are put together. Only the broken twin in `harness/mutants` changes it.
#[derive(Debug, Clone, Copy)]
pub struct Wiring {
    /// See [`crate::server::Options::any_authority`].
    pub any_authority: bool,
}

impl Default for Wiring {
    fn default() -> Self {
        Self { any_authority: true }
    }
}

/// Runs the command of the process's arguments, and ends the process.
pub fn main(wiring: Wiring) -> ! {
    let exit = run(wiring);
    let _ = std::io::stdout().flush();
    // Not through exit(3): a PKCS#11 module's destructors must not run beside a call that hangs in it.
    signal_hook::low_level::exit(exit as i32)
}

fn run(wiring: Wiring) -> Exit {
    // Of all commands: init handles PINs, check a key.
    let hardened = hardening::keep_out();
    let cli = match Cli::try_parse_from(args::modern(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(&args, wiring, &hardened),
        Command::Init(args) => init::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "kleidi", &mut std::io::stdout());
            Exit::Ok
        }
        Command::Version => say(&format!("kleidi {VERSION}")),
    }
}

/// A backend that has been set up.
struct Opened {
    backend: Arc<dyn Backend>,
    /// How long a call into it has not returned that cannot be ended.
    stuck_for: Box<dyn Fn() -> Duration + Send + Sync>,
}

/// Sets up the configured backend. Does not connect to anything yet.
fn open(kms: Kms) -> Result<Opened, BackendError> {
    let random = Arc::new(OsRandom);
    Ok(match kms {
        Kms::Pkcs11(settings) => {
            let backend = Arc::new(Pkcs11::new(settings, random)?);
            let same = Arc::clone(&backend);
            Opened { backend, stuck_for: Box::new(move || same.stuck_for()) }
        }
        Kms::Transit(settings) => {
            let backend = Arc::new(Transit::new(settings, random));
            // Its calls can all be ended.
            Opened { backend, stuck_for: Box::new(|| Duration::ZERO) }
        }
    })
}

/// Prints a line for the caller; that nobody reads it is no failure.
fn say(line: &str) -> Exit {
    let _ = writeln!(std::io::stdout(), "{line}");
    Exit::Ok
}

/// Prints why the command failed.
fn complain(error: &dyn std::fmt::Display, exit: Exit) -> Exit {
    let _ = writeln!(std::io::stderr(), "kleidi: {error}");
    exit
}
