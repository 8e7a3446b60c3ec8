//! `cargo kind`: scenarios on real clusters, from nothing, on any machine with Docker.
//!
//! ```text
//! runner     plays scenarios, sums up
//! scenario   what a scenario is
//! scenarios  one file each: begin here
//!   cluster  a cluster on kind
//!     plan   what it is to be like
//!     seed   what its nodes are prepared from
//!     node   a node: its shell, its kube-apiserver, its etcd
//!     openbao
//!     balancer before several control planes
//!   verify   how every scenario ends
//!     stored what is in etcd
//!   load     writes while something happens
//!   foreign  objects of other plugins
//! ```

mod api;
mod balancer;
mod clock;
mod cluster;
mod command;
mod evidence;
mod foreign;
mod guard;
mod load;
mod node;
mod openbao;
mod plan;
mod progress;
mod runner;
mod scenario;
mod scenarios;
mod seed;
mod stored;
mod tools;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Real clusters on kind with kleidi in them.
///
/// KIND_NODE_IMAGE is the image of a node, such as kindest/node of a registry; without it one is built, from
/// Debian and Go modules. KLEIDI_IMAGE is kleidi's, otherwise built from this checkout: on bases of the registry, if
/// there is one for the node, too.
#[derive(Debug, Parser)]
#[command(name = "cargo kind", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the scenarios, and what each shows
    List,
    /// Make a cluster with kleidi as a static pod, and leave it
    Up,
    /// Play scenarios, each on clusters of its own; 1 if one failed
    Run {
        /// Which; all if none is named
        scenarios: Vec<String>,
        /// Leave the clusters, to look inside
        #[arg(long)]
        keep: bool,
        /// Put a broken plugin in kleidi's place: the scenario has to fail
        #[arg(long)]
        broken: Option<plan::Broken>,
    },
    /// Write the logs of all nodes of clusters that are there into target/kind
    Logs,
    /// Remove clusters that were left
    Down {
        /// Which, with or without `kleidi-`; all of ours if none is named
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::List => {
            runner::list();
            Ok(ExitCode::SUCCESS)
        }
        Command::Up => runner::up().map(|()| ExitCode::SUCCESS),
        Command::Run { scenarios, keep, broken } => runner::run(&scenarios, keep, broken),
        Command::Logs => runner::logs().map(|()| ExitCode::SUCCESS),
        Command::Down { names } => runner::down(&names).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        progress::complain(&error);
        ExitCode::from(2)
    })
}
