//! The network between plugins and servers, and HTTP on it.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kleidi::backend::transit::edges::{Dialing, Edges};
use tokio::io::{DuplexStream, duplex};
use zeroize::Zeroizing;

use super::answer::Asked;
use super::{Cluster, ROLE_ID, SECRET_ID};
use crate::latest::Latest;
use crate::world::net::{UNDER_WAY, carry, nothing};
use crate::world::plan::{Gate, Machine, SERVERS, Trouble};

/// Where the servers are.
pub(super) fn addresses() -> Vec<String> {
    (0..SERVERS).map(|server| format!("http://bao-{server}:8200")).collect()
}

fn server_at(authority: &str) -> Option<usize> {
    let number = authority.strip_prefix("bao-")?.strip_suffix(":8200")?;
    number.parse().ok().filter(|server| *server < SERVERS)
}

/// The network and the files of one process.
pub(super) struct Wire {
    pub(super) cluster: Arc<Cluster>,
    pub(super) node: usize,
    /// Whether the process is dead.
    pub(super) dead: Arc<Latest<bool>>,
}

impl Edges for Wire {
    fn dial(&self, authority: &str) -> Dialing {
        let cluster = Arc::clone(&self.cluster);
        let (node, server, dead) = (self.node, server_at(authority), Arc::clone(&self.dead));
        Box::pin(async move {
            let server =
                server.ok_or_else(|| io::Error::other("dns error: there is no such name"))?;
            match cluster.connect(node, server, dead) {
                Ok(Some(stream)) => Ok(Box::new(stream) as _),
                // What was sent is lost on the way.
                Ok(None) => pending().await,
                Err(kind) => Err(kind.into()),
            }
        })
    }

    fn read(&self, file: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        match file.to_str() {
            Some("role_id") => Ok(Zeroizing::new(ROLE_ID.into())),
            Some("secret_id") => Ok(Zeroizing::new(SECRET_ID.into())),
            _ => Err("no such file or directory".to_owned()),
        }
    }
}

impl Cluster {
    /// A connection, if there is somebody; `None` if nothing comes back.
    fn connect(
        self: Arc<Self>,
        node: usize,
        server: usize,
        dead: Arc<Latest<bool>>,
    ) -> Result<Option<DuplexStream>, io::ErrorKind> {
        let (machine, route, trouble) = {
            let state = self.state.lock();
            (state.servers[server].machine, state.routes[node][server], state.views[node].trouble)
        };
        let (link, (client, outer)) = (Arc::clone(&self.links[node][server]), duplex(UNDER_WAY));
        let refuses = matches!(machine, Machine::Killed | Machine::Stopped);
        match (route, trouble) {
            _ if *dead.get() => return Err(io::ErrorKind::ConnectionAborted),
            (Gate::Missing, _) => return Ok(None),
            (Gate::Refusing, _) | (_, Trouble::Unreachable) => {
                return Err(io::ErrorKind::ConnectionRefused);
            }
            _ if refuses => return Err(io::ErrorKind::ConnectionRefused),
            (Gate::Mute | Gate::Frozen, _) | (_, Trouble::Hangs) => {
                tokio::spawn(nothing(outer, link));
            }
            // The machine answers, the program on it does not.
            _ if machine == Machine::Hung => {
                tokio::spawn(nothing(outer, link));
            }
            (Gate::Open, _) => {
                let (inner, accepted) = duplex(UNDER_WAY);
                tokio::spawn(serve(self, node, server, accepted));
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = dead.until(|dead| *dead) => {}
                        () = carry(outer, inner, link) => {}
                    }
                });
            }
        }
        Ok(Some(client))
    }

    /// Makes the links what servers and routes are.
    pub(super) fn set_links(&self) {
        let state = self.state.lock();
        for (node, links) in self.links.iter().enumerate() {
            for (server, link) in links.iter().enumerate() {
                let hangs = state.routes[node][server].is_silent()
                    || state.servers[server].machine == Machine::Hung
                    || state.views[node].trouble == Trouble::Hangs;
                let gate = if hangs { Gate::Frozen } else { Gate::Open };
                if link.get().gate != gate {
                    link.change(|link| link.gate = gate);
                }
            }
        }
    }

    /// Cuts all connections between those nodes and servers.
    pub(super) fn cut(&self, between: impl Fn(usize, usize) -> bool) {
        for (node, links) in self.links.iter().enumerate() {
            for (_, link) in links.iter().enumerate().filter(|(server, _)| between(node, *server)) {
                link.change(|link| link.cut += 1);
            }
        }
    }
}

/// Serves a connection to its end.
async fn serve(cluster: Arc<Cluster>, node: usize, server: usize, stream: DuplexStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let cluster = Arc::clone(&cluster);
        async move { Ok::<_, Infallible>(respond(&cluster, node, server, request).await) }
    });
    let mut builder = http1::Builder::new();
    // The date is the machine's and not the run's.
    builder.auto_date_header(false);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(
    cluster: &Arc<Cluster>,
    node: usize,
    server: usize,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return pending().await };
    let path = parts.uri.path().strip_prefix("/v1/").unwrap_or_default();
    let token = parts.headers.get("x-vault-token").and_then(|token| token.to_str().ok());
    let asked = Asked { node, server, path, token, body: &body.to_bytes() };
    let Some(answer) = cluster.answer(asked).await else { return pending().await };
    let mut response = Response::new(Full::new(answer.body.into()));
    *response.status_mut() = answer.status;
    response
}
