//! One connection to a plugin, as kube-apiserver makes it, with a deadline for each call.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use kleidi_proto::client::{Connection, origin};
use kleidi_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::endpoint::Endpoint;
use crate::heard::{Heard, Refused};

/// The service's path, before a method's name.
pub const SERVICE: &str = "/v2.KeyManagementService/";

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
    timeout: Duration,
    /// Longest answer in bytes.
    receives: usize,
}

/// Longest answer that kube-apiserver takes, in bytes: grpc-go's default.
const RECEIVES: usize = 4 << 20;

impl Client {
    /// Connects and begins HTTP/2.
    pub async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Self, String> {
        let connecting = UnixStream::connect(endpoint.address());
        match timeout(limit, connecting).await {
            Ok(Ok(stream)) => Self::over(stream, limit).await,
            Ok(Err(error)) => Err(format!("cannot connect to {endpoint}: {error}")),
            Err(_) => Err(format!("cannot connect to {endpoint} within {limit:?}")),
        }
    }

    /// Begins HTTP/2 on a connection; `limit` is for this, and for each call.
    pub async fn over(stream: UnixStream, limit: Duration) -> Result<Self, String> {
        match timeout(limit, Connection::open(stream)).await {
            Ok(Ok(connection)) => Ok(Self { connection, timeout: limit, receives: RECEIVES }),
            Ok(Err(error)) => Err(format!("HTTP/2 does not begin: {error}")),
            Err(_) => Err(format!("HTTP/2 does not begin within {limit:?}")),
        }
    }

    /// The same connection; takes answers of this many bytes.
    #[must_use]
    pub fn receiving(&self, bytes: usize) -> Self {
        Self { receives: bytes, ..self.clone() }
    }

    /// Calls Status.
    pub async fn status(&self) -> Result<StatusResponse, Status> {
        self.unary("Status", StatusRequest {}).await
    }

    /// Calls Encrypt.
    pub async fn encrypt(&self, plaintext: &[u8], uid: String) -> Result<EncryptResponse, Status> {
        self.unary("Encrypt", EncryptRequest { plaintext: plaintext.to_vec(), uid }).await
    }

    /// Calls Decrypt.
    pub async fn decrypt(&self, request: DecryptRequest) -> Result<Vec<u8>, Status> {
        let answer: DecryptResponse = self.unary("Decrypt", request).await?;
        Ok(answer.plaintext.to_vec())
    }

    /// Calls a method of the service with any message.
    pub async fn unary<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        self.call(&format!("{SERVICE}{method}"), request).await
    }

    /// Calls any method with the headers that kube-apiserver sends: the answer's deadline, that the answer
    /// may be compressed, and with Decrypt what its client of etcd leaks.
    pub async fn call<Q, A>(&self, path: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut request = tonic::Request::new(request);
        request.set_timeout(self.timeout);
        if path.ends_with("/Decrypt") {
            leaked(request.metadata_mut());
        }
        let path: PathAndQuery =
            path.parse().map_err(|_| Status::internal(format!("{path} is no path")))?;
        let refused = Refused::default();
        let heard = Heard::new(self.connection.clone(), refused.clone());
        let mut grpc = tonic::client::Grpc::with_origin(heard, origin())
            .max_decoding_message_size(self.receives)
            .accept_compressed(CompressionEncoding::Gzip);
        let answered = async {
            grpc.ready().await.map_err(ended)?;
            grpc.unary(request, path, tonic_prost::ProstCodec::<Q, A>::default()).await
        };
        let Ok(answer) = timeout(self.timeout, answered).await else {
            let mut status =
                Status::deadline_exceeded(format!("no answer within {:?}", self.timeout));
            status.set_source(Arc::new(Overdue));
            return Err(status);
        };
        answer.map(tonic::Response::into_inner).map_err(|mut status| {
            if status.source().is_none() && !refused.by_server() {
                status.set_source(Arc::new(Unsaid));
            }
            status
        })
    }
}

/// What the real kube-apiserver 1.29 to 1.37 has been seen to send with Decrypt: it comes from the watch
/// or the list of which the object is a part.
fn leaked(metadata: &mut MetadataMap) {
    metadata.insert("source", MetadataValue::from_static("cache"));
    metadata.insert("hasleader", MetadataValue::from_static("true"));
}

/// That there was no answer in time: unlike an answer which says that something else took too long.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
struct Overdue;

/// That the server did not say how the call ended: the status is made up by the library.
#[derive(Debug, thiserror::Error)]
#[error("no grpc-status came")]
struct Unsaid;

/// Whether the call was given up here.
#[must_use]
pub fn overdue(status: &Status) -> bool {
    status.source().is_some_and(<dyn Error>::is::<Overdue>)
}

/// Whether the server itself answered, with a `grpc-status`: the call was not given up here, and neither its
/// stream nor its connection was cut off.
#[must_use]
pub fn answered(status: &Status) -> bool {
    status.source().is_none()
}

/// Whether the call ended with an error of its stream or its connection.
#[must_use]
pub fn cut_off(status: &Status) -> bool {
    status.source().is_some_and(|source| !source.is::<Overdue>() && !source.is::<Unsaid>())
}

/// The connection takes no call any more.
fn ended(error: hyper::Error) -> Status {
    let mut status = Status::unavailable(error.to_string());
    status.set_source(Arc::new(error));
    status
}

/// An answer of Encrypt as kube-apiserver sends it back, with a fresh uid.
#[must_use]
pub fn back(wrapped: &EncryptResponse, uid: String) -> DecryptRequest {
    DecryptRequest {
        ciphertext: wrapped.ciphertext.clone(),
        uid,
        key_id: wrapped.key_id.clone(),
        annotations: wrapped.annotations.clone(),
    }
}

/// A status for a report: its code and the beginning of its message.
#[must_use]
pub fn describe(status: &Status) -> String {
    let message: String = status.message().chars().take(200).collect();
    format!("{} ({message:?})", code_name(status.code()))
}

/// A code as gRPC's documentation spells it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use parking_lot::Mutex;

    use super::*;

    /// How a call ends that is answered with this HTTP status and these headers, and nothing else.
    async fn refusal(http: u16, headers: &'static [(&'static str, &'static str)]) -> Status {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let service = service_fn(move |_: http::Request<hyper::body::Incoming>| {
            let mut answer = http::Response::builder().status(http);
            for (name, value) in headers {
                answer = answer.header(*name, *value);
            }
            let answer = answer.body(http_body_util::Empty::<prost::bytes::Bytes>::new());
            async move { answer }
        });
        let server = http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(theirs), service));
        let client = Client::over(ours, Duration::from_secs(60)).await.unwrap();
        client.status().await.unwrap_err()
    }

    #[tokio::test]
    async fn an_answer_without_a_grpc_status_is_none() {
        for http in [200, 404, 503] {
            let status = refusal(http, &[("content-type", "application/grpc")]).await;
            assert!(!answered(&status) && !overdue(&status) && !cut_off(&status), "{status:?}");
            assert!(answered(&refusal(http, &[("grpc-status", "5")]).await));
        }
        assert!(!answered(&refusal(200, &[("grpc-status", "0")]).await), "and no message");
    }

    /// The headers of one call, which is turned away.
    async fn headers(call: impl AsyncFnOnce(Client)) -> http::HeaderMap {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let seen = Arc::new(Mutex::new(http::HeaderMap::new()));
        let kept = Arc::clone(&seen);
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            *kept.lock() = request.headers().clone();
            let mut answer =
                http::Response::new(http_body_util::Empty::<prost::bytes::Bytes>::new());
            answer.headers_mut().insert("grpc-status", http::HeaderValue::from_static("12"));
            async { Ok::<_, Infallible>(answer) }
        });
        let server = http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(theirs), service));
        call(Client::over(ours, Duration::from_secs(60)).await.unwrap()).await;
        seen.lock().clone()
    }

    #[tokio::test]
    async fn a_call_has_kube_apiservers_headers() {
        let status = headers(async |client| drop(client.status().await)).await;
        assert_eq!(
            status["grpc-accept-encoding"].to_str().unwrap().split(',').next(),
            Some("gzip")
        );
        assert!(!status.contains_key("source") && status.contains_key("grpc-timeout"));
        let decrypt = headers(async |client| drop(client.decrypt(DecryptRequest::default()).await));
        let decrypt = decrypt.await;
        assert_eq!(
            (&decrypt["source"], &decrypt["hasleader"]),
            (&"cache".parse().unwrap(), &"true".parse().unwrap())
        );
    }
}
