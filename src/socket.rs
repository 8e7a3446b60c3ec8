//! The Unix socket: where kube-apiserver connects, and who may.
//!
//! Whoever can connect can have every seed unwrapped, so the socket is 0600 from its first moment,
//! its directory is checked, and the peer's uid is compared with a list at every connection.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::time::Duration;

use listenfd::ListenFd;
use nix::unistd::{Gid, Uid};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;
use tracing::{info, warn};

mod address;
mod claim;

use crate::server::Incoming;
pub use address::{Address, ParseAddressError};
use claim::Claim;
pub use claim::SocketError;

/// Who may use the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Permission bits of the file, for instance `0o600`.
    pub mode: u32,
    /// Owner of the file; ours if `None`.
    pub owner: Option<Uid>,
    /// Group of the file; ours if `None`.
    pub group: Option<Gid>,
    /// Users whose processes may connect, by their effective uid.
    pub users: BTreeSet<u32>,
}

/// Mode of the socket's file, unless told otherwise.
pub const DEFAULT_MODE: u32 = 0o600;

/// A refused user is logged once per this time.
const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(60);

/// A listening socket that lets only the allowed users in.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    users: BTreeSet<u32>,
    /// When each refused uid was last logged.
    refused: BTreeMap<u32, Instant>,
    /// Removes the file in the end; `None` if there is none, or if systemd has it.
    _claim: Option<Claim>,
}

impl Listener {
    /// The socket that systemd hands over, or else a new one at `address`.
    ///
    /// Needs a tokio runtime.
    pub fn open(address: &Address, access: &Access) -> Result<Self, SocketError> {
        let (listener, claim) = if let Some(listener) = from_systemd()? {
            announce(&listener, address, access);
            (listener, None)
        } else {
            let bound = bind(address, access)?;
            info!(%address, "listening");
            bound
        };
        let io =
            |source| SocketError::Io { attempted: "listen on", path: address.to_string(), source };
        listener.set_nonblocking(true).map_err(io)?;
        let socket = UnixListener::from_std(listener).map_err(io)?;
        let users = access.users.clone();
        Ok(Self { socket, users, refused: BTreeMap::new(), _claim: claim })
    }

    /// Whether this client may talk to us; says so in the log if not.
    fn admit(&mut self, stream: &UnixStream) -> bool {
        let peer = match stream.peer_cred() {
            Ok(peer) => peer,
            Err(error) => {
                warn!(%error, "refused a connection: its user cannot be told");
                return false;
            }
        };
        if self.users.contains(&peer.uid()) {
            return true;
        }
        let now = Instant::now();
        self.refused.retain(|_, then| now.duration_since(*then) < REFUSAL_LOG_PERIOD);
        if let Entry::Vacant(first) = self.refused.entry(peer.uid()) {
            first.insert(now);
            warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "refused a connection: this user is not in socket.allowedUsers"
            );
        }
        false
    }
}

impl Incoming for Listener {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.socket.accept().await?;
            if self.admit(&stream) {
                return Ok(stream);
            }
        }
    }
}

fn bind(address: &Address, access: &Access) -> Result<(StdListener, Option<Claim>), SocketError> {
    let name = match address {
        Address::Path(path) => {
            let (listener, claim) = claim::claim(path, access)?;
            return Ok((listener, Some(claim)));
        }
        Address::Abstract(name) => name,
    };
    let bound =
        SocketAddr::from_abstract_name(name).and_then(|address| StdListener::bind_addr(&address));
    match bound {
        Ok(listener) => {
            warn!(
                %address,
                "an abstract socket has no owner and no mode: only the list of users protects it"
            );
            Ok((listener, None))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(SocketError::InUse(address.to_string().into()))
        }
        Err(source) => {
            let path = address.to_string();
            Err(SocketError::Io { attempted: "listen on", path, source })
        }
    }
}

/// Says which socket systemd handed over, and what of the configuration has no effect on it.
fn announce(handed_over: &StdListener, address: &Address, access: &Access) {
    let name = handed_over.local_addr().ok().and_then(|name| Address::of(&name));
    info!(
        address = name.as_ref().map(tracing::field::display),
        "listening on the socket that systemd handed over"
    );
    if name.as_ref() != Some(address) {
        warn!(
            listen = %address,
            "socket.listen has no effect on it: it says only where kleidi status looks"
        );
    }
    if access.mode != DEFAULT_MODE || access.owner.is_some() || access.group.is_some() {
        warn!("socket.mode, owner and group have no effect on it: set them in its unit");
    }
}

/// The socket of a systemd socket unit (`LISTEN_FDS`).
fn from_systemd() -> Result<Option<StdListener>, SocketError> {
    let mut handed_over = ListenFd::from_env();
    match handed_over.len() {
        0 => Ok(None),
        1 => handed_over.take_unix_listener(0).map_err(|error| {
            SocketError::Systemd(format!("{error}; ListenStream= has to be a Unix socket"))
        }),
        n => Err(SocketError::Systemd(format!("{n} of them; the socket unit has to have one"))),
    }
}
