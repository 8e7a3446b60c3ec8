//! Unix sockets in memory. A dial goes to whoever listens under that address, through what the link to it
//! does at the time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kleidi::server::Incoming;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::plan::Gate;
use crate::edges::{Dial, Dialing};
use crate::latest::Latest;

/// Bytes that are under way in one direction at most.
pub(super) const UNDER_WAY: usize = 64 * 1024;

/// What a link does to what goes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// What a client meets.
    pub gate: Gate,
    /// How long each piece takes.
    pub delay: Duration,
    /// Most bytes of a piece.
    pub piece: usize,
    /// Connections of another number are cut.
    pub(super) cut: u64,
    /// On connections of another number the client has ended what it sends.
    half: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self { gate: Gate::Open, delay: Duration::ZERO, piece: UNDER_WAY, cut: 0, half: 0 }
    }
}

impl Link {
    /// Nothing is done to what goes over it; what was cut, or half closed, stays so.
    pub fn heal(&mut self) {
        *self = Self { cut: self.cut, half: self.half, ..Self::default() };
    }
}

/// All sockets.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<BTreeMap<Vec<u8>, Socket>>>);

struct Socket {
    link: Arc<Latest<Link>>,
    listener: Option<mpsc::UnboundedSender<DuplexStream>>,
    /// Whether there is a file, though nobody listens: its owner was killed.
    left_behind: bool,
}

/// Where connections of a socket come out.
pub struct Listener(mpsc::UnboundedReceiver<DuplexStream>);

impl Net {
    /// Listens at this address from now on; who did so before does not any more.
    #[must_use]
    pub fn listen(&self, address: &[u8]) -> Listener {
        let (listener, connections) = mpsc::unbounded_channel();
        self.with(address, |socket| socket.listener = Some(listener));
        Listener(connections)
    }

    /// Nobody listens there any more. A process that was killed leaves its file behind.
    pub fn close(&self, address: &[u8], left_behind: bool) {
        self.with(address, |socket| (socket.listener, socket.left_behind) = (None, left_behind));
    }

    /// Changes the link.
    pub fn change(&self, address: &[u8], change: impl FnOnce(&mut Link)) {
        self.with(address, |socket| socket.link.change(change));
    }

    /// Cuts all connections.
    pub fn cut(&self, address: &[u8]) {
        self.change(address, |link| link.cut += 1);
    }

    /// The client's end is all that the server still gets of each connection; what the server says arrives.
    pub fn half_close(&self, address: &[u8]) {
        self.change(address, |link| link.half += 1);
    }

    fn with<T>(&self, address: &[u8], job: impl FnOnce(&mut Socket) -> T) -> T {
        let mut sockets = self.0.lock();
        job(sockets.entry(address.to_vec()).or_insert_with(|| Socket {
            link: Arc::new(Latest::new(Link::default())),
            listener: None,
            left_behind: false,
        }))
    }

    fn connect(&self, address: &[u8]) -> io::Result<DuplexStream> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file or directory");
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        self.with(address, |socket| {
            let link = Arc::clone(&socket.link);
            let gate = link.get().gate;
            let (client, outer) = duplex(UNDER_WAY);
            match (gate, &socket.listener) {
                (Gate::Refusing, _) => return Err(refused()),
                (Gate::Mute | Gate::Frozen, _) => {
                    tokio::spawn(nothing(outer, link));
                }
                (Gate::Open, None) if socket.left_behind => return Err(refused()),
                (Gate::Missing, _) | (Gate::Open, None) => return Err(missing()),
                (Gate::Open, Some(listener)) => {
                    let (inner, server) = duplex(UNDER_WAY);
                    listener.send(server).map_err(|_| refused())?;
                    tokio::spawn(carry(outer, inner, link));
                }
            }
            Ok(client)
        })
    }
}

impl Dial for Net {
    fn dial(&self, address: &[u8]) -> Dialing {
        let outcome = self.connect(address);
        Box::pin(async move { outcome.map(|stream| Box::new(stream) as _) })
    }
}

impl Incoming for Listener {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        match self.0.recv().await {
            Some(stream) => Ok(stream),
            None => std::future::pending().await,
        }
    }
}

/// Holds a connection until it is cut, and says nothing on it.
pub(super) async fn nothing(stream: DuplexStream, link: Arc<Latest<Link>>) {
    let cut = link.get().cut;
    link.until(|link| link.cut != cut || link.gate == Gate::Open).await;
    drop(stream);
}

/// Carries both directions of a connection until one side ends it or it is cut.
pub(super) async fn carry(client: DuplexStream, server: DuplexStream, link: Arc<Latest<Link>>) {
    let Link { cut, half, .. } = *link.get();
    let (from_client, to_client) = split(client);
    let (from_server, mut to_server) = split(server);
    let there = async {
        tokio::select! {
            biased;
            () = link.until(|link| link.half != half) => {}
            () = pump(from_client, &mut to_server, &link) => return,
        }
        let _ = to_server.shutdown().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = link.until(|link| link.cut != cut) => {}
        () = there => {}
        () = pump(from_server, to_client, &link) => {}
    }
}

/// Carries one direction to its end.
async fn pump(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    link: &Latest<Link>,
) {
    let mut bytes = vec![0; UNDER_WAY];
    loop {
        let piece = link.get().piece.clamp(1, UNDER_WAY);
        let read = match from.read(&mut bytes[..piece]).await {
            Ok(read) if read > 0 => read,
            _ => return,
        };
        link.until(|link| link.gate != Gate::Frozen).await;
        let delay = link.get().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
