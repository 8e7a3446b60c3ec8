//! `kleidi-sim apiserver`: an apiserver without an API, for those who want to see what a plugin and an
//! EncryptionConfiguration do to what is in etcd.

mod args;
mod calls;
mod session;
#[cfg(feature = "world")]
mod world;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

use crate::apiserver::{Apiserver, Options};
use crate::edges::{Edges, Watch};
use crate::etcd::Etcd;
use crate::store::Store;
use args::{ApiserverArgs, Args, Program};

/// Runs the program: 0 if all commands succeeded, 1 if one failed, 2 if it was called wrongly or could not
/// start (the README's table).
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Args::parse().program {
        Program::Apiserver(args) => apiserver(args),
        #[cfg(feature = "world")]
        Program::Run(args) => world::run_one(&args),
        #[cfg(feature = "world")]
        Program::Hunt(args) => world::hunt(&args),
        #[cfg(feature = "world")]
        Program::Replay { plan, keep } => world::replay(&plan, keep.as_deref()),
        #[cfg(feature = "world")]
        Program::Shrink { plan } => world::shrink_file(&plan),
        #[cfg(feature = "world")]
        Program::Explain { directory, page, before } => {
            world::explain(&directory, page.as_deref(), before)
        }
        #[cfg(feature = "world")]
        Program::Judge { directory } => world::judge_again(&directory),
        #[cfg(feature = "world")]
        Program::Mutants { seeds, jobs } => Ok(world::mutants(seeds, jobs)),
        #[cfg(feature = "world")]
        Program::Twice(args) => world::twice(&args),
    };
    outcome.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::from(2)
    })
}

fn apiserver(args: ApiserverArgs) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let well = runtime.block_on(run(args))?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn run(args: ApiserverArgs) -> Result<bool, String> {
    let watch = args.calls.then(|| Arc::new(calls::Printer::default()) as Arc<dyn Watch>);
    let edges = Edges::os(watch);
    let etcd = Etcd::connect(&args.etcd).await.map_err(|error| error.to_string())?;
    let path = args.config.clone();
    let config = Arc::new(move || std::fs::read(&path));
    let options = Options { version: args.version, config, reload: args.automatic_reload };
    let apiserver = Apiserver::start(edges.clone(), options).await;
    let apiserver = apiserver.map_err(|error| format!("{}: {error}", args.config.display()))?;
    let store = Store { apiserver, etcd, edges, prefix: joined(&args.etcd_prefix) };
    session::run(store, args.command).await
}

/// As kube-apiserver takes `--etcd-prefix`: with one slash before each part, and none at the end.
fn joined(prefix: &str) -> String {
    prefix
        .split('/')
        .filter(|part| !part.is_empty())
        .fold(String::new(), |path, part| path + "/" + part)
}

#[allow(clippy::print_stderr, reason = "it is a program")]
fn complain(error: &str) {
    eprintln!("kleidi-sim: {error}");
}

/// Whoever does not read on (`| head`) has what he wanted.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
