//! One connection at a time, as grpc-go's pass-through resolver and `pick_first` make it (spec 2.2).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use kleidi_proto::client::Connection;
use kleidi_proto::kms::key_management_service_client::KeyManagementServiceClient;
use kleidi_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

use super::authority::stand_in;
use super::backoff::{ATTEMPT, backoff};
use super::fault::{Fault, fault};
use super::wire::Wire;
use crate::edges::{Answer, Edges};
use crate::latest::Latest;
use crate::version::Version;

type Client = KeyManagementServiceClient<Sender>;

/// Where calls go, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// The entry's name, for those who watch.
    pub name: String,
    /// The socket: a path, or `@` and an abstract name.
    pub address: Vec<u8>,
    /// Of one call.
    pub timeout: Duration,
    /// Whose ways.
    pub version: Version,
}

/// The client of one `kms` entry. Connects with its first call.
pub struct Channel {
    shared: Arc<Shared>,
    connects: JoinHandle<()>,
}

struct Shared {
    target: Target,
    edges: Edges,
    state: Latest<State>,
    /// Calls that wait for a connection.
    waiting: AtomicUsize,
    /// There is one more of them.
    wanted: Notify,
    /// The number of the last connection on which the server takes no more calls.
    abandoned: Latest<u64>,
}

#[derive(Clone)]
enum State {
    /// There is no connection, and nobody has asked for one since the last ended.
    Idle,
    /// The first attempt is under way.
    Connecting,
    /// Attempts fail: why the last did. They go on without being asked for.
    Failing(String),
    /// Connection by its number.
    Ready(u64, Connection),
}

impl Channel {
    /// Needs a tokio runtime.
    #[must_use]
    pub fn new(edges: Edges, target: Target) -> Self {
        let shared = Arc::new(Shared {
            target,
            edges,
            state: Latest::new(State::Idle),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            abandoned: Latest::new(0),
        });
        let connects = tokio::spawn(Arc::clone(&shared).connect());
        Self { shared, connects }
    }

    /// Calls Status.
    pub async fn status(&self) -> Result<StatusResponse, Status> {
        let send = |mut client: Client, request| async move { client.status(request).await };
        self.shared.call("Status", StatusRequest {}, &MetadataMap::new(), send).await
    }

    /// Calls Encrypt.
    pub async fn encrypt(&self, request: EncryptRequest) -> Result<EncryptResponse, Status> {
        if let Some(watch) = &self.shared.edges.watch {
            watch.sends(&request.plaintext);
        }
        let send = |mut client: Client, request| async move { client.encrypt(request).await };
        self.shared.call("Encrypt", request, &MetadataMap::new(), send).await
    }

    /// Calls Decrypt. `metadata` is what leaks from the apiserver's own client of etcd.
    pub async fn decrypt(
        &self,
        request: DecryptRequest,
        metadata: &MetadataMap,
    ) -> Result<DecryptResponse, Status> {
        let send = |mut client: Client, request| async move { client.decrypt(request).await };
        self.shared.call("Decrypt", request, metadata, send).await
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connects.abort();
    }
}

impl Shared {
    /// Makes a call within its timeout: waits for a connection, and makes it again if the server cannot
    /// have seen it.
    async fn call<M, T, F>(
        &self,
        method: &str,
        message: M,
        metadata: &MetadataMap,
        send: impl Fn(Client, Request<M>) -> F,
    ) -> Result<T, Status>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
        T: Answered,
    {
        let (began, start) = (self.edges.clock.now(), Instant::now());
        let deadline = start + self.target.timeout;
        let attempts = async {
            let (mut last, mut repeated) = (0, false);
            loop {
                let (number, connection) = self.ready(last).await;
                let remaining = deadline.saturating_duration_since(Instant::now());
                let request = self.request(message.clone(), remaining, metadata);
                let answer = match send(self.client(connection), request).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => fault(status),
                };
                match answer {
                    Fault::NotSent => {}
                    Fault::GoneAway(_) if !repeated => repeated = true,
                    Fault::Refused(_) if !repeated => {
                        repeated = true;
                        continue;
                    }
                    Fault::GoneAway(status) | Fault::Refused(status) | Fault::Failed(status) => {
                        return Err(status);
                    }
                }
                self.abandoned.change(|last| *last = number.max(*last));
                last = number;
            }
        };
        let answer = timeout_at(deadline, attempts).await.unwrap_or_else(|_| Err(self.late()));
        if let Some(watch) = &self.edges.watch {
            let outcome = answer.as_ref().map(Answered::answer);
            watch.called(&self.target.name, method, began, start.elapsed(), outcome);
        }
        answer
    }

    /// Waits for a connection that is not the one with the number `but`.
    async fn ready(&self, but: u64) -> (u64, Connection) {
        let _waiting = Waiting::new(self);
        let ready = self.state.find(|state| match state {
            State::Ready(number, connection) if *number != but => {
                Some((*number, connection.clone()))
            }
            _ => None,
        });
        ready.await
    }

    fn request<M>(&self, message: M, remaining: Duration, metadata: &MetadataMap) -> Request<M> {
        let mut request = Request::new(message);
        *request.metadata_mut() = metadata.clone();
        request.set_timeout(remaining);
        let agent = MetadataValue::from_static(self.target.version.user_agent());
        request.metadata_mut().insert("user-agent", agent);
        request
    }

    fn client(&self, connection: Connection) -> Client {
        let host = self.stand_in().unwrap_or_else(|| "localhost".to_owned());
        // A host of letters is a legal URI.
        let origin =
            http::Uri::builder().scheme("http").authority(host).path_and_query("/").build();
        KeyManagementServiceClient::with_origin(Sender(connection), origin.unwrap_or_default())
    }

    /// What stands for `:authority`, unless that is `localhost`.
    fn stand_in(&self) -> Option<String> {
        self.authority().as_deref().map(stand_in)
    }

    fn authority(&self) -> Option<String> {
        let authority = self.target.version.authority(&self.target.address);
        (authority != "localhost").then_some(authority)
    }

    /// The error of a call whose time is over.
    fn late(&self) -> Status {
        Status::deadline_exceeded(match &*self.state.get() {
            State::Failing(error) => {
                format!("latest balancer error: connection error: desc = \"{error}\"")
            }
            _ => "context deadline exceeded".to_owned(),
        })
    }

    /// Makes connections for ever: one when a call waits for it, and while attempts fail.
    async fn connect(self: Arc<Self>) {
        let mut number = 0;
        loop {
            while self.waiting.load(Ordering::Relaxed) == 0 {
                self.wanted.notified().await;
            }
            self.state.set(State::Connecting);
            let mut failures = 0;
            let (connection, gone) = loop {
                let wait = backoff(failures, self.random());
                match timeout(wait.max(ATTEMPT), self.open()).await {
                    Ok(Ok(made)) => break made,
                    Ok(Err(error)) => self.state.set(State::Failing(error)),
                    Err(_) => {
                        let error = "transport: the server has not said SETTINGS in time";
                        self.state.set(State::Failing(error.to_owned()));
                    }
                }
                sleep(wait).await;
                failures += 1;
            };
            number += 1;
            self.state.set(State::Ready(number, connection));
            tokio::select! {
                biased;
                _ = gone => {}
                () = self.abandoned.until(|last| *last >= number) => {}
            }
            self.state.set(State::Idle);
        }
    }

    /// One attempt: connected, and the server has spoken. With it comes what ends with the connection.
    async fn open(&self) -> Result<(Connection, tokio::sync::oneshot::Receiver<()>), String> {
        let dialing = self.edges.dial.dial(&self.target.address);
        let stream = dialing.await.map_err(|error| {
            let address = String::from_utf8_lossy(&self.target.address);
            format!("transport: Error while dialing: dial unix {address}: {error}")
        })?;
        let (wire, signs) = Wire::new(stream, self.authority());
        let connection = Connection::open(wire).await;
        let connection = connection.map_err(|error| format!("transport: {error}"))?;
        match signs.spoken.await {
            Ok(()) => Ok((connection, signs.gone)),
            Err(_) => Err("error reading server preface: EOF".to_owned()),
        }
    }

    /// From 0 to 1.
    fn random(&self) -> f64 {
        self.edges.bytes().map_or(0.5, |bytes| f64::from(u16::from_be_bytes(bytes)) / 65535.0)
    }
}

/// A response, as whoever watches is told of it.
trait Answered {
    fn answer(&self) -> Answer<'_>;
}

impl Answered for StatusResponse {
    fn answer(&self) -> Answer<'_> {
        Answer::Status(self)
    }
}

impl Answered for EncryptResponse {
    fn answer(&self) -> Answer<'_> {
        Answer::Encrypt(self)
    }
}

impl Answered for DecryptResponse {
    fn answer(&self) -> Answer<'_> {
        Answer::Decrypt(self)
    }
}

/// A call that waits for a connection.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        shared.wanted.notify_one();
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection whose end shows in the error of a call, where the generated client would hide it.
#[derive(Clone)]
struct Sender(Connection);

impl tower_service::Service<http::Request<tonic::body::Body>> for Sender {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        self.0.call(request)
    }
}
