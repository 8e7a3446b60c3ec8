//! The server, service and provider together, over pipes in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use kleidi_proto::client::{Connection, connect};
use kleidi_proto::kms::key_management_service_client::KeyManagementServiceClient;
use kleidi_proto::kms::{DecryptRequest, EncryptRequest, StatusRequest};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Request};

use super::*;
use crate::provider::Health;
use crate::provider::tests::fake::{FakeKms, key, outage};
use crate::random::OsRandom;
use tokio::time::Instant;

type Client = KeyManagementServiceClient<Connection>;

/// Connections that a test makes.
struct Pipes(mpsc::Receiver<io::Result<DuplexStream>>);

impl Incoming for Pipes {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        match self.0.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }
}

/// A server on a KMS in memory.
struct World {
    kms: Arc<FakeKms>,
    pipes: mpsc::Sender<io::Result<DuplexStream>>,
    shutdown: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<Drained>,
}

impl World {
    fn new() -> Self {
        Self::with_grace(Duration::from_secs(5))
    }

    fn with_grace(grace: Duration) -> Self {
        let kms = FakeKms::new(&[1]);
        let health =
            Health { period: Duration::from_secs(10), stale_after: Duration::from_secs(30) };
        let (provider, monitor) = Provider::new(Arc::clone(&kms) as _, Arc::new(OsRandom), health);
        tokio::spawn(monitor.run());
        let (pipes, incoming) = mpsc::channel(1000);
        let (shutdown, told) = oneshot::channel();
        let options = Options { any_authority: true, grace };
        let told = async {
            let _ = told.await;
        };
        let server = tokio::spawn(serve(Pipes(incoming), provider, options, told));
        Self { kms, pipes, shutdown, server }
    }

    async fn raw(&self) -> DuplexStream {
        let (ours, theirs) = duplex(64 * 1024);
        self.pipes.send(Ok(theirs)).await.unwrap();
        ours
    }

    async fn client(&self) -> Client {
        connect(self.raw().await).await.unwrap()
    }
}

fn encrypt(bytes: usize) -> EncryptRequest {
    EncryptRequest { plaintext: vec![7; bytes], uid: "uid".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn the_three_calls() {
    let world = World::new();
    let mut client = world.client().await;
    let status = client.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((&*status.version, &*status.healthz), ("v2", "ok"));
    assert_eq!(status.key_id, key(1).id.to_string());
    let wrapped = client.encrypt(encrypt(32)).await.unwrap().into_inner();
    assert_eq!(wrapped.key_id, status.key_id);
    let request = DecryptRequest {
        ciphertext: wrapped.ciphertext,
        uid: String::new(),
        key_id: wrapped.key_id,
        annotations: wrapped.annotations,
    };
    let opened = client.decrypt(request.clone()).await.unwrap().into_inner();
    assert_eq!(&*opened.plaintext, &[7; 32]);
    for (change, code) in [
        (DecryptRequest { ciphertext: Vec::new(), ..request.clone() }, Code::InvalidArgument),
        (DecryptRequest { ciphertext: vec![9; 60], ..request.clone() }, Code::InvalidArgument),
        (DecryptRequest { key_id: String::new(), ..request.clone() }, Code::NotFound),
        (DecryptRequest { key_id: key(9).id.to_string(), ..request.clone() }, Code::NotFound),
        (
            DecryptRequest { annotations: BTreeMap::from([("a.b".into(), vec![])]), ..request },
            Code::InvalidArgument,
        ),
    ] {
        assert_eq!(client.decrypt(change).await.unwrap_err().code(), code);
    }
    for bytes in [0, 1000, 5000] {
        assert_eq!(client.encrypt(encrypt(bytes)).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_a_grpc_error_and_never_an_unhealthy_answer() {
    let world = World::new();
    let mut client = world.client().await;
    client.status(StatusRequest {}).await.unwrap();
    world.kms.script.lock().fails = Some(outage("unplugged"));
    sleep(Duration::from_secs(11)).await;
    let error = client.status(StatusRequest {}).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("unplugged"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_is_refused_and_the_next_one_is_not() {
    let world = World::new();
    let mut client = world.client().await;
    let error = client.encrypt(encrypt(limits::REQUEST_BYTES_MAX)).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error}");
    client.encrypt(encrypt(32)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_clients_deadline_is_heeded() {
    let world = World::new();
    world.kms.script.lock().observing_hangs = true;
    let mut client = world.client().await;
    let begin = Instant::now();
    let mut request = Request::new(StatusRequest {});
    request.metadata_mut().insert("grpc-timeout", "100m".parse().unwrap());
    assert_eq!(client.status(request).await.unwrap_err().code(), Code::Unavailable);
    assert!(begin.elapsed() < Duration::from_millis(200), "{:?}", begin.elapsed());
    // Without one, or with a later one, ours.
    let begin = Instant::now();
    assert_eq!(client.status(StatusRequest {}).await.unwrap_err().code(), Code::Unavailable);
    assert!(begin.elapsed() <= limits::CALL_TIMEOUT + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_calls_on_one_connection_and_on_many() {
    let world = World::new();
    let shared = world.client().await;
    let mut calls = JoinSet::new();
    for n in 0..600 {
        let mut client = if n % 2 == 0 { shared.clone() } else { world.client().await };
        calls.spawn(async move {
            let wrapped = client.encrypt(encrypt(32)).await.unwrap().into_inner();
            let request = DecryptRequest {
                ciphertext: wrapped.ciphertext,
                uid: String::new(),
                key_id: wrapped.key_id,
                annotations: wrapped.annotations,
            };
            assert_eq!(&*client.decrypt(request).await.unwrap().into_inner().plaintext, &[7; 32]);
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_accept_is_survived() {
    let world = World::new();
    for _ in 0..3 {
        world.pipes.send(Err(io::Error::other("no file descriptors"))).await.unwrap();
    }
    world.client().await.status(StatusRequest {}).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_calls_in_flight_and_for_nothing_else() {
    let world = World::new();
    // Status waits for the first observation, which takes a while.
    world.kms.script.lock().observing_takes = Duration::from_secs(1);
    let mut client = world.client().await;
    let call = tokio::spawn(async move { client.status(StatusRequest {}).await });
    // One client who never says anything, and one whose connection is idle.
    let _silent = world.raw().await;
    let _idle = world.client().await;
    sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    world.shutdown.send(()).unwrap();
    assert_eq!(world.server.await.unwrap(), Drained::All);
    assert!(call.await.unwrap().is_ok(), "it was answered");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_end_is_cut_off() {
    let world = World::with_grace(Duration::from_millis(500));
    world.kms.script.lock().observing_hangs = true;
    let mut client = world.client().await;
    let call = tokio::spawn(async move { client.status(StatusRequest {}).await });
    sleep(Duration::from_millis(100)).await;
    world.shutdown.send(()).unwrap();
    assert_eq!(world.server.await.unwrap(), Drained::CutOff(1));
    call.abort();
}

#[tokio::test(start_paused = true)]
async fn a_malformed_connection_ends_alone() {
    let world = World::new();
    let mut client = world.client().await;
    let mut other = world.raw().await;
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    client.status(StatusRequest {}).await.unwrap();
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut other, &mut rest).await.unwrap();
    client.status(StatusRequest {}).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_closed_and_an_idle_one_is_not() {
    let world = World::new();
    let mut client = world.client().await;
    client.status(StatusRequest {}).await.unwrap();
    let mut silent = world.raw().await;
    let begin = Instant::now();
    let mut said = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut said).await;
    let closed_after = begin.elapsed();
    assert!(closed_after >= limits::FIRST_BYTE_TIMEOUT, "{closed_after:?}");
    assert!(closed_after < limits::FIRST_BYTE_TIMEOUT + Duration::from_secs(1), "{closed_after:?}");
    sleep(Duration::from_secs(3600)).await;
    client.status(StatusRequest {}).await.unwrap();
}
