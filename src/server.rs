//! Serves connections until told to stop; knows nothing of keys.
//!
//! [`serve`] takes where connections come from and a shutdown future as arguments: the daemon gives
//! a Unix socket and a signal, a test or a simulation gives in-memory pipes and a channel.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

mod speaks_soon;
#[cfg(test)]
mod tests;

use crate::authority::AnyAuthority;
use crate::limits;
use crate::provider::Provider;
use crate::service::{Calls, Service};
use crate::sim_point::sim_point;
use kleidi_proto::kms::key_management_service_server::KeyManagementServiceServer;
use speaks_soon::SpeaksSoon;

/// Where connections come from.
pub trait Incoming: Send {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection that may talk to us.
    ///
    /// An error says that none could be accepted now, not that none ever will.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// How to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Accept any `:authority` (see [`crate::authority`]). Without it, kube-apiserver before 1.32
    /// cannot use a file socket: only the test that shows this turns it off.
    pub any_authority: bool,
    /// How long calls in flight may take to end after the shutdown begins.
    pub grace: Duration,
}

/// How the calls ended that were in flight at shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All were answered.
    All,
    /// This many were cut off at the end of the grace period.
    CutOff(usize),
}

/// Serves until `shutdown` completes, then lets the calls in flight end.
pub async fn serve<I: Incoming>(
    mut incoming: I,
    provider: Arc<Provider>,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) -> Drained {
    // It wakes connections in the order in which they came; `watch` would draw one anew each time.
    let (stopping, _) = broadcast::channel(1);
    let calls = Arc::new(Calls::default());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    sim_point!("listening, and not yet accepting");
    loop {
        let full = connections.len() >= limits::CONNECTIONS_MAX;
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = incoming.accept(), if !full => match accepted {
                Ok(stream) => {
                    let service = Service::for_connection(Arc::clone(&provider), Arc::clone(&calls));
                    let stopping = stopping.subscribe();
                    let stream = SpeaksSoon::new(stream);
                    if options.any_authority {
                        connections.spawn(connection(AnyAuthority::new(stream), service, stopping));
                    } else {
                        connections.spawn(connection(stream, service, stopping));
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection; trying again");
                    sleep(limits::ACCEPT_RETRY).await;
                }
            },
        }
    }
    // The socket closes with `incoming`: nobody new comes in while the others finish.
    drop(incoming);
    // An error says that nobody is connected.
    let _ = stopping.send(());
    drain(connections, &calls, options.grace).await
}

/// Waits for the calls in flight, those that come before the clients hear of the shutdown among them,
/// and then a moment for their answers to go out: a client that keeps its connection open, or never
/// says anything on it, does not keep us.
async fn drain(mut connections: JoinSet<()>, calls: &Calls, grace: Duration) -> Drained {
    if timeout(grace, calls.none_left()).await.is_err() {
        return Drained::CutOff(calls.in_flight());
    }
    let closed = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(limits::FLUSH_TIMEOUT, closed).await;
    Drained::All
}

/// Serves one connection to its end.
async fn connection<S>(
    stream: S,
    service: KeyManagementServiceServer<Service>,
    mut stopping: broadcast::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        // Nobody reads it, and what is sent does not depend on the time of day.
        .auto_date_header(false)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let outcome = tokio::select! {
        biased;
        outcome = &mut connection => outcome,
        // The sender lives as long as the server; without it there is nothing left to wait for.
        _ = stopping.recv() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        // Malformed input, or a client that went away: its connection is over, nothing else is.
        debug!(error = %Chain(&error), "a connection ended with an error");
    }
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
