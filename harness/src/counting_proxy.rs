//! Between a client and its server: passes everything on, and counts it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;

/// How often each path was asked for.
type Counts = Arc<Mutex<BTreeMap<String, usize>>>;

/// A proxy for HTTP without TLS, on a port of 127.0.0.1; ends when dropped.
#[derive(Debug)]
pub struct CountingProxy {
    address: String,
    counts: Counts,
    _runtime: Runtime,
}

impl CountingProxy {
    /// Starts one before the server at `server`, a URL without a path.
    ///
    /// # Panics
    ///
    /// If there is no port or thread to be had.
    #[must_use]
    pub fn start(server: &str) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a thread for a proxy");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("it can be made non-blocking");
        let (counts, server) = (Counts::default(), server.to_owned());
        runtime.spawn(accept(listener, server, Arc::clone(&counts)));
        Self { address: format!("http://{address}"), counts, _runtime: runtime }
    }

    /// Where it listens, as a URL.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How often each path was asked for since the last look.
    #[must_use]
    pub fn take(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn accept(listener: TcpListener, server: String, counts: Counts) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let client: Client<HttpConnector, Incoming> =
        Client::builder(TokioExecutor::new()).build_http();
    while let Ok((stream, _)) = listener.accept().await {
        let (client, server, counts) = (client.clone(), server.clone(), Arc::clone(&counts));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            *request.uri_mut() =
                Uri::try_from(format!("{server}{path}")).expect("a path that was asked for");
            *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default() += 1;
            client.request(request)
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
