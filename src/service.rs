//! The gRPC service: decodes, bounds, sets the deadline, and turns errors into codes.
//!
//! No crypto and no I/O here. One [`Service`] serves one connection, because what Status announced
//! is remembered per connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::{debug, info, warn};

pub mod status_code;

use crate::limits;
use crate::provider::{Announced, Error, Provider, Stored};
use crate::secret::Secret;
use kleidi_proto::kms::key_management_service_server::{
    KeyManagementService, KeyManagementServiceServer,
};
use kleidi_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};

/// The protocol version: `v2` since Kubernetes 1.29. It must never change: kube-apiserver remembers it
/// (k8s.io/apiserver pkg/server/options/encryptionconfig/config.go, `isKMSv2ProviderHealthyAndMaybeRotateDEK`).
const VERSION: &str = "v2";

/// The only `healthz` that is not an error. An outage is a gRPC error instead: with any other text
/// and a key_id, kube-apiserver would go on extending its write seed (kubernetes/kubernetes#138950).
pub const HEALTHZ_OK: &str = "ok";

/// The plugin's side of one connection.
pub struct Service {
    provider: Arc<Provider>,
    announced: Announced,
    calls: Arc<Calls>,
}

/// Counts the calls in flight over all connections.
#[derive(Debug, Default)]
pub struct Calls {
    in_flight: AtomicUsize,
    /// Told when none is left.
    none: Notify,
}

impl Calls {
    /// How many there are.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// One more, unless there are too many; to be held until it is over.
    fn begin(&self) -> Result<Call<'_>, Status> {
        let before = self.in_flight.fetch_add(1, Ordering::SeqCst);
        let call = Call(self);
        if before < limits::CALLS_MAX {
            Ok(call)
        } else {
            Err(Status::resource_exhausted("too many calls are in flight"))
        }
    }

    /// Waits until there is none; more may come after that.
    pub async fn none_left(&self) {
        loop {
            let told = self.none.notified();
            if self.in_flight() == 0 {
                return;
            }
            told.await;
        }
    }
}

/// A call in flight for as long as it lives.
struct Call<'a>(&'a Calls);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

impl Service {
    /// The gRPC server for one connection, with the limits on messages.
    #[must_use]
    pub fn for_connection(
        provider: Arc<Provider>,
        calls: Arc<Calls>,
    ) -> KeyManagementServiceServer<Self> {
        let service = Self { provider, announced: Announced::default(), calls };
        KeyManagementServiceServer::new(service)
            .max_decoding_message_size(limits::REQUEST_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl KeyManagementService for Service {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let _call = self.calls.begin()?;
        let deadline = deadline(request.metadata());
        match self.provider.status(&self.announced, deadline).await {
            Ok(key_id) => Ok(Response::new(StatusResponse {
                version: VERSION.to_owned(),
                healthz: HEALTHZ_OK.to_owned(),
                key_id: key_id.to_string(),
            })),
            Err(error) => Err(refuse("Status", "", &error)),
        }
    }

    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let _call = self.calls.begin()?;
        let deadline = deadline(request.metadata());
        let EncryptRequest { plaintext, uid } = request.into_inner();
        match self.provider.encrypt(&self.announced, Secret::from(plaintext), deadline).await {
            Ok(encrypted) => {
                info!(uid = printable(&uid), key_id = %encrypted.key_id, "wrapped a seed");
                Ok(Response::new(EncryptResponse {
                    ciphertext: encrypted.ciphertext,
                    key_id: encrypted.key_id.to_string(),
                    annotations: encrypted.annotations,
                }))
            }
            Err(error) => Err(refuse("Encrypt", &uid, &error)),
        }
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let _call = self.calls.begin()?;
        let deadline = deadline(request.metadata());
        let DecryptRequest { ciphertext, uid, key_id, annotations } = request.into_inner();
        let stored = Stored { ciphertext, key_id, annotations };
        match self.provider.decrypt(stored, deadline).await {
            Ok(seed) => {
                debug!(uid = printable(&uid), "unwrapped a seed");
                Ok(Response::new(DecryptResponse { plaintext: seed.into_bytes() }))
            }
            Err(error) => Err(refuse("Decrypt", &uid, &error)),
        }
    }
}

/// The answer for an error, and a line in the log with the call's uid.
///
/// An outage is logged when it begins and when it ends; the calls that fail in between are only
/// logged at the level `debug`.
fn refuse(call: &'static str, uid: &str, error: &Error) -> Status {
    let code = status_code::code(error);
    if status_code::is_outage(error) {
        debug!(call, uid = printable(uid), ?code, %error, "refused");
    } else {
        warn!(call, uid = printable(uid), ?code, %error, "refused");
    }
    Status::new(code, error.to_string())
}

/// When the call has to be answered: by the client's `grpc-timeout`, by ours if that is sooner.
fn deadline(metadata: &MetadataMap) -> Instant {
    let stated = metadata.get("grpc-timeout").and_then(|value| grpc_timeout(value.as_bytes()));
    Instant::now() + stated.map_or(limits::CALL_TIMEOUT, |stated| stated.min(limits::CALL_TIMEOUT))
}

/// Parses a `grpc-timeout`: 1 to 8 digits and a unit (gRPC over HTTP/2, "Requests").
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// A uid as it may be logged: kube-apiserver sends a UUID, others what they like.
fn printable(uid: &str) -> &str {
    let harmless = |uid: &str| uid.bytes().all(|byte| byte.is_ascii_graphic());
    if uid.len() <= limits::UID_BYTES_MAX && harmless(uid) { uid } else { "<not printable>" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, wanted) in [
            ("2999853u", Some(Duration::from_micros(2_999_853))),
            ("100m", Some(Duration::from_millis(100))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("1S", Some(Duration::from_secs(1))),
            ("2M", Some(Duration::from_secs(120))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("u", None),
            ("12", None),
            ("+1S", None),
            ("123456789S", None),
            ("1 S", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), wanted, "{text:?}");
        }
    }

    /// kube-apiserver does not retry a call that was refused: what comes before it hears of a shutdown
    /// is served, and waited for.
    #[tokio::test]
    async fn calls_that_come_while_others_are_waited_for_are_served() {
        let calls = Calls::default();
        let first = calls.begin().unwrap();
        let none_left = calls.none_left();
        tokio::pin!(none_left);
        assert!(is_pending(&mut none_left).await);
        let second = calls.begin().expect("it is not refused");
        drop(first);
        assert!(is_pending(&mut none_left).await);
        drop(second);
        none_left.await;
        let all: Vec<_> = (0..limits::CALLS_MAX).map(|_| calls.begin().unwrap()).collect();
        assert_eq!(calls.begin().err().unwrap().code(), tonic::Code::ResourceExhausted);
        drop(all);
        assert_eq!(calls.in_flight(), 0);
    }

    async fn is_pending(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }

    #[test]
    fn uids_are_logged_only_if_they_are_harmless() {
        let uuid = "7d7b6a2c-2f3a-4d54-9a2f-0a1b2c3d4e5f";
        assert_eq!(printable(uuid), uuid);
        for uid in ["a\nfake log line", "\u{1b}[31m", "é", &"a".repeat(65)] {
            assert_eq!(printable(uid), "<not printable>");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_timeout_is_total(value in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = grpc_timeout(&value);
        }
    }
}
