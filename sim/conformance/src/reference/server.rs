//! Serves the reference plugin on a Unix socket, with the faults that are the server's.

mod deaf;
mod front;

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kleidi_proto::kms::key_management_service_server::KeyManagementServiceServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Instance;
use super::faulty::{Connection, Faulty, LATE_NODE, LATE_ROTATION, Process};
use super::keyring::Keyring;
use super::mutant::Fault;
use super::plugin::{Announce, Plugin};
use crate::context::hex;
use front::Front;

/// How long calls in flight may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// What all connections share.
struct Server {
    plugin: Arc<Plugin>,
    process: Arc<Process>,
    fault: Option<Fault>,
    front: Arc<Front>,
    /// The next connection is turned away.
    busy: AtomicBool,
    /// Counts how often all connections were ended.
    ended: watch::Sender<usize>,
    /// Whether it stops.
    stopping: watch::Sender<bool>,
}

/// Serves until SIGTERM, or until nobody holds the lifeline.
pub(super) async fn run(instance: Instance) -> Result<(), String> {
    let trouble = |error: std::io::Error| format!("{}: {error}", instance.dir.display());
    let socket = instance.path("sock");
    let listener = listen(&socket, instance.mutant).map_err(trouble)?;
    let server = Arc::new(prepare(&instance).map_err(trouble)?);
    let mut terminated = signal(SignalKind::terminate()).map_err(trouble)?;
    let mut connections = JoinSet::new();
    let lifeline = lifeline(instance.lifeline.as_deref());
    tokio::pin!(lifeline);
    loop {
        tokio::select! {
            biased;
            _ = terminated.recv() => break,
            () = &mut lifeline => return Ok(()),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if !server.is_taken(&connections) => {
                let (stream, _) = accepted.map_err(trouble)?;
                connections.spawn(Arc::clone(&server).serve(stream));
            }
        }
    }
    drop(listener);
    let _ = fs::remove_file(&socket);
    if server.fault != Some(Fault::DropsCallsAtStop) {
        server.stopping.send_replace(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        // Whoever is not done by then is cut off.
        let _ = tokio::time::timeout(GRACE, ended).await;
    }
    Ok(())
}

fn listen(socket: &Path, fault: Option<Fault>) -> std::io::Result<UnixListener> {
    if socket.exists() {
        fs::remove_file(socket)?;
        if fault == Some(Fault::StumblesOverStaleSocket) {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
    }
    let listener = UnixListener::bind(socket)?;
    let mode = if fault == Some(Fault::SocketForAll) { 0o666 } else { 0o600 };
    fs::set_permissions(socket, Permissions::from_mode(mode))?;
    let directory_mode = match fault {
        Some(Fault::DirectoryForAll) => Some(0o777),
        Some(Fault::StickyDirectoryForAll) => Some(0o1777),
        _ => None,
    };
    if let (Some(mode), Some(directory)) = (directory_mode, socket.parent()) {
        fs::set_permissions(directory, Permissions::from_mode(mode))?;
    }
    Ok(listener)
}

fn prepare(instance: &Instance) -> std::io::Result<Server> {
    let announce = match instance.mutant {
        Some(Fault::NeverRotates) => Announce::First,
        Some(Fault::MissesRotationBack) => Announce::NewMaterial,
        Some(Fault::LateRotation | Fault::EncryptLeads) => Announce::After(LATE_ROTATION),
        Some(Fault::LateNode) if instance.name != "a" => Announce::After(LATE_NODE),
        _ => Announce::Newest,
    };
    let plugin = Plugin::new(Keyring::open(&instance.dir)?, announce);
    let first = plugin.refresh().map_err(std::io::Error::other)?;
    // A byte for each start.
    let mut starts = File::options().create(true).append(true).open(instance.path("starts"))?;
    starts.write_all(&[0])?;
    let starts = starts.metadata()?.len();
    let mut incarnation = [0; 4];
    getrandom::fill(&mut incarnation).map_err(std::io::Error::other)?;
    let ended = watch::Sender::new(0);
    Ok(Server {
        process: Arc::new(Process::new(instance.name.clone(), hex(&incarnation), starts, first)),
        plugin: Arc::new(plugin),
        fault: instance.mutant,
        front: Arc::new(Front::new(instance.mutant, ended.clone())),
        busy: AtomicBool::new(false),
        ended,
        stopping: watch::Sender::new(false),
    })
}

/// Waits until the server stops.
async fn stop(stopping: &mut watch::Receiver<bool>) {
    // The sender lives as long as the server.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Ends when nobody has the FIFO open for writing any more; never without one.
async fn lifeline(path: Option<&Path>) {
    if let Some(path) = path
        && let Ok(mut fifo) = tokio::net::unix::pipe::OpenOptions::new().open_receiver(path)
    {
        let _ = fifo.read(&mut [0]).await;
        return;
    }
    std::future::pending::<()>().await;
}

impl Server {
    fn is_taken(&self, connections: &JoinSet<()>) -> bool {
        self.fault == Some(Fault::OneConnectionAtATime) && !connections.is_empty()
    }

    /// Serves one connection to its end.
    async fn serve(self: Arc<Self>, mut stream: UnixStream) {
        if self.busy.swap(false, Ordering::SeqCst) {
            return;
        }
        if self.fault == Some(Fault::SpeaksNoHttp2) {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            return;
        }
        if self.fault == Some(Fault::IgnoresPings) {
            match deaf::to_pings(stream) {
                Ok(deaf) => stream = deaf,
                Err(_) => return,
            }
        }
        let mut stopping = self.stopping.subscribe();
        let mut ended = self.ended.subscribe();
        let begun = Arc::new(AtomicBool::new(false));
        let connection = self.connection(stream, Arc::clone(&begun));
        tokio::pin!(connection);
        let outcome = tokio::select! {
            biased;
            outcome = &mut connection => outcome,
            _ = ended.changed() => return,
            () = stop(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            self.broken(&error, begun.load(Ordering::SeqCst));
        }
    }

    fn connection(
        &self,
        stream: UnixStream,
        begun: Arc<AtomicBool>,
    ) -> http2::Connection<TokioIo<UnixStream>, front::Service, TokioExecutor> {
        let service = KeyManagementServiceServer::new(Faulty {
            plugin: Arc::clone(&self.plugin),
            fault: self.fault,
            process: Arc::clone(&self.process),
            connection: Arc::new(Connection::new(&self.process)),
        });
        let unlimited = [Some(Fault::NoRequestLimit), Some(Fault::OversizeIsInternal)];
        let service = if unlimited.contains(&self.fault) {
            service.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
        } else {
            service
        };
        let front = front::Service::new(service, Arc::clone(&self.front), begun);
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), front)
    }

    /// A connection did not end in order.
    fn broken(&self, error: &hyper::Error, begun: bool) {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut protocol = false;
        while let Some(error) = cause {
            protocol |= error.downcast_ref::<h2::Error>().is_some_and(|e| e.reason().is_some());
            cause = error.source();
        }
        match self.fault {
            Some(Fault::ProtocolErrorEndsAll) if protocol => {
                self.ended.send_modify(|count| *count += 1);
            }
            Some(Fault::BusyAfterBrokenConnection) if begun => {
                self.busy.store(true, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}
