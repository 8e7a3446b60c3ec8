//! `kleidi serve`: puts the parts together and runs them.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Exit, Opened, ServeArgs, Wiring, complain};
use crate::config::{Config, LogLevel, Overrides};
use crate::provider::Provider;
use crate::random::OsRandom;
use crate::server::{Drained, Options, serve};
use crate::socket::Listener;
use crate::{hardening, notify, telemetry};

/// Readiness is reported with the first observation, and after this time without one: a KMS that is
/// down must not keep systemd waiting.
const READY_AFTER: Duration = Duration::from_secs(5);

pub(super) fn run(args: &ServeArgs, wiring: Wiring, hardened: &hardening::Lacking) -> Exit {
    let overrides = Overrides {
        listen: args.listen.clone(),
        log_level: args.log_level.or(args.debugmode.unwrap_or(false).then_some(LogLevel::Debug)),
        log_format: args.log_format,
    };
    let config = match Config::load(args.config.config.as_deref(), &overrides) {
        Ok(config) => config,
        Err(error) => return complain(&error, Exit::Config),
    };
    telemetry::start(config.log_level, config.log_format);
    hardened.log();
    hardening::raise_file_limit();
    if config.lock_memory {
        hardening::lock_memory();
    }
    announce(&config);
    // One thread for the sockets is enough for any number of apiservers; the calls into the HSM have
    // threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(serve_until_told(config, wiring));
            // Without waiting for a name that a dead resolver is still asked for.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            error!(%error, "cannot start the runtime");
            Exit::Failure
        }
    }
}

/// Says what is about to run, and as what it was configured.
fn announce(config: &Config) {
    let access = &config.access;
    info!(
        version = super::VERSION,
        file = %config.file.display(),
        listen = %config.listen,
        mode = format_args!("{:04o}", access.mode),
        owner = ?access.owner,
        group = ?access.group,
        users = ?access.users,
        kms = ?config.kms,
        period = ?config.health.period,
        stale_after = ?config.health.stale_after,
        shutdown_grace = ?config.shutdown_grace,
        lock_memory = config.lock_memory,
        from_environment = ?config.remarks.taken,
        "starting"
    );
    for warning in &config.remarks.warnings {
        warn!("{warning}");
    }
}

async fn serve_until_told(config: Config, wiring: Wiring) -> Exit {
    let (mut terminate, mut interrupt) = match signals() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "cannot listen to signals");
            return Exit::Failure;
        }
    };
    let random = Arc::new(OsRandom);
    let Opened { backend, stuck_for } = match super::open(config.kms) {
        Ok(opened) => opened,
        Err(error) => {
            error!(%error, "cannot use the configured KMS");
            return Exit::from(&error);
        }
    };
    let listener = match Listener::open(&config.listen, &config.access) {
        Ok(listener) => listener,
        Err(error) => {
            error!(%error, "cannot listen");
            return Exit::Socket;
        }
    };
    let (provider, monitor) = Provider::new(backend, random, config.health);
    let monitor = tokio::spawn(monitor.run());
    tokio::spawn(async move {
        // It ends by a bug alone; without it Status would be stale for ever, and nobody would start us again.
        if let Err(bug) = monitor.await {
            error!(%bug, "nothing looks at the KMS any more: ending, to be started again");
            signal_hook::low_level::exit(Exit::Failure as i32);
        }
    });
    tokio::spawn(notify::report(provider.states()));
    tokio::spawn(notify::watchdog(stuck_for, || {
        signal_hook::low_level::exit(Exit::Unavailable as i32);
    }));
    tokio::spawn(report_readiness(Arc::clone(&provider)));

    let options = Options { any_authority: wiring.any_authority, grace: config.shutdown_grace };
    let shutdown = async {
        told_to_stop(&mut terminate, &mut interrupt).await;
        info!("stopping: finishing the calls in flight; a second signal ends them");
        notify::stopping();
        tokio::spawn(async move {
            told_to_stop(&mut terminate, &mut interrupt).await;
            warn!("ended by a second signal");
            signal_hook::low_level::exit(Exit::Failure as i32);
        });
    };
    match serve(listener, provider, options, shutdown).await {
        Drained::All => info!("stopped"),
        Drained::CutOff(calls) => {
            warn!(calls, "stopped; calls that took longer than shutdownGrace were cut off");
        }
    }
    Exit::Ok
}

fn signals() -> std::io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

async fn told_to_stop(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn report_readiness(provider: Arc<Provider>) {
    provider.first_observation(Instant::now() + READY_AFTER).await;
    notify::ready();
}
