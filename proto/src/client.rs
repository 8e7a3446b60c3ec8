//! A client for a plugin's socket, over one HTTP/2 connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::kms::key_management_service_client::KeyManagementServiceClient;

/// One connection, as the generated client wants it. Clones share it.
#[derive(Debug, Clone)]
pub struct Connection(SendRequest<tonic::body::Body>);

/// Begins HTTP/2 on `stream` with `localhost` for `:authority`, as kube-apiserver since 1.32.
///
/// Needs a tokio runtime, on which the connection is driven from then on.
pub async fn connect<S>(stream: S) -> hyper::Result<KeyManagementServiceClient<Connection>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Ok(Connection::open(stream).await?.client())
}

impl Connection {
    /// Begins HTTP/2 on `stream`.
    ///
    /// Needs a tokio runtime, on which the connection is driven from then on.
    pub async fn open<S>(stream: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // Its end shows in the calls.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// A client of the plugin interface on this connection.
    #[must_use]
    pub fn client(&self) -> KeyManagementServiceClient<Self> {
        KeyManagementServiceClient::with_origin(self.clone(), origin())
    }
}

/// What kube-apiserver since 1.32 sends for `:authority`.
#[must_use]
pub fn origin() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

impl tower_service::Service<http::Request<tonic::body::Body>> for Connection {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
