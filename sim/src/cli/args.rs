//! What can be said to the program.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Parser, Subcommand};

use crate::secret::valid;
use crate::version::Version;

/// A model of kube-apiserver as a KMS v2 plugin meets it
#[derive(Debug, Parser)]
#[command(name = "kleidi-sim", version)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) program: Program,
}

#[derive(Debug, Subcommand)]
pub(super) enum Program {
    Apiserver(ApiserverArgs),
    /// Play one seed: a cluster in memory with kleidi in it, and faults; 1 if safety was broken, 4 if liveness
    #[cfg(feature = "world")]
    Run(super::world::RunArgs),
    /// Play seeds until one fails or the time is over
    #[cfg(feature = "world")]
    Hunt(super::world::HuntArgs),
    /// Play a plan from a file, or from the directory that a failed run has left
    #[cfg(feature = "world")]
    Replay {
        /// plan.toml
        plan: PathBuf,
        /// Write plan, history and verdict into this directory
        #[arg(long, value_name = "DIRECTORY")]
        keep: Option<PathBuf>,
    },
    /// Make a plan smaller that fails
    #[cfg(feature = "world")]
    Shrink {
        /// plan.toml
        plan: PathBuf,
    },
    /// Show what happened around the first thing that went wrong
    #[cfg(feature = "world")]
    Explain {
        /// What a run has left
        directory: PathBuf,
        /// Draw it as a page for a browser instead
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
        /// Begin so many seconds before it
        #[arg(long, default_value_t = 300)]
        before: u64,
    },
    /// Judge a history again
    #[cfg(feature = "world")]
    Judge {
        /// What a run has left
        directory: PathBuf,
    },
    /// Play with broken plugins until each has been caught
    #[cfg(feature = "world")]
    Mutants {
        /// Seeds for each at most
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// How many at a time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Play one seed several times, in two processes: 5 if it is not the same each time
    #[cfg(feature = "world")]
    Twice(super::world::RunArgs),
}

/// Put, get, list and rewrite Secrets in etcd as kube-apiserver does, without one
///
/// Starts as kube-apiserver does: loads the EncryptionConfiguration, calls Status and Encrypt of each plugin,
/// and then polls them. Without a command it reads commands from standard input, one a line, and goes on
/// polling meanwhile; `wait 60s` lets time pass.
#[derive(Debug, clap::Args)]
pub(super) struct ApiserverArgs {
    /// The EncryptionConfiguration
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,

    /// Where etcd is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2379")]
    pub(super) etcd: String,

    /// Which Kubernetes: 1.29 (also for 1.30), 1.31, 1.37 (for 1.34 and later)
    #[arg(long, default_value_t)]
    pub(super) version: Version,

    /// What keys in etcd begin with
    #[arg(long, value_name = "PREFIX", default_value = "/registry")]
    pub(super) etcd_prefix: String,

    /// Look at the configuration each minute, and use it when it has changed
    #[arg(long)]
    pub(super) automatic_reload: bool,

    /// Print each call of a plugin to standard error
    #[arg(long)]
    pub(super) calls: bool,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// A command on standard input.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub(super) struct Line {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Set a Secret's content
    Put {
        /// NAMESPACE/NAME
        secret: Name,
        /// KEY=VALUE, or KEY:base64=VALUE
        #[arg(required = true)]
        data: Vec<Entry>,
    },
    /// Print a Secret's content: KEY=VALUE, or KEY:base64=VALUE if the value is not one line of text
    Get {
        /// NAMESPACE/NAME
        secret: Name,
    },
    /// List Secrets: what they are encrypted with, whether that is stale, whether they can be read
    List {
        /// Of this namespace alone
        #[arg(value_parser = namespace)]
        namespace: Option<String>,
    },
    /// Write Secrets back as they are, which moves those that are stale to the present key
    Rewrite {
        /// Of this namespace alone
        #[arg(value_parser = namespace)]
        namespace: Option<String>,
    },
    /// Say what /healthz/kms-providers says
    Health,
    /// Let time pass, in which plugins are polled
    Wait {
        /// 90s, 3m
        #[arg(value_parser = humantime::parse_duration)]
        time: Duration,
    },
}

fn namespace(name: &str) -> Result<String, String> {
    valid::namespace(name).map(|()| name.to_owned())
}

/// A Secret's name.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) => {
                valid::namespace(namespace)?;
                valid::name(name)?;
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            None => Err("a Secret is named NAMESPACE/NAME".to_owned()),
        }
    }
}

/// One entry of a Secret.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
}

impl std::str::FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("an entry is KEY=VALUE")?;
        // No key has a colon.
        let (key, value) = match key.strip_suffix(":base64") {
            Some(key) => (key, STANDARD.decode(value).map_err(|error| format!("{key}: {error}"))?),
            None => (key, value.as_bytes().to_vec()),
        };
        valid::key(key)?;
        Ok(Self { key: key.to_owned(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_would_not_take_is_a_mistake() {
        for wrong in ["one", "/one", "default/", "Default/one", "default/a/b", "default/One"] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
        assert_eq!("default/a.b".parse::<Name>().unwrap().name, "a.b");
        for wrong in ["a", "=1", "x y=1", "a:base64=%", "a:b=1"] {
            assert!(wrong.parse::<Entry>().is_err(), "{wrong}");
        }
        for (text, value) in [("a=1=2", &b"1=2"[..]), ("a=", b""), ("a:base64=AP8=", b"\x00\xff")] {
            let entry: Entry = text.parse().unwrap();
            assert_eq!((entry.key.as_str(), entry.value.as_slice()), ("a", value), "{text}");
        }
    }
}
