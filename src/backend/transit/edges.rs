//! What the client needs of the world beside the time and random bytes: connections and files.
//!
//! The daemon asks the operating system and speaks TLS; a simulation hands in its own, and then this client
//! runs in it whole.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tower_service::Service;
use zeroize::Zeroizing;

use super::http_client::CONNECT_TIMEOUT;

/// A connection to a server, on which HTTP is spoken as it is.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that is being made.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Connections and files that are not the operating system's.
pub trait Edges: Send + Sync + 'static {
    /// Connects to `authority`: what is behind `http://` in [`super::Settings::addresses`].
    fn dial(&self, authority: &str) -> Dialing;

    /// What is in a file with a credential, or why it cannot be read. Does not wait.
    fn read(&self, file: &Path) -> Result<Zeroizing<Vec<u8>>, String>;
}

/// Connects by [`Edges`].
#[derive(Clone)]
pub(super) struct Connector(pub(super) Arc<dyn Edges>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Dialed>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialing = self.0.dial(uri.authority().map_or("", http::uri::Authority::as_str));
        Box::pin(async move {
            match timeout(CONNECT_TIMEOUT, dialing).await {
                Ok(stream) => Ok(TokioIo::new(Dialed(stream?))),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

/// What was dialled.
pub(super) struct Dialed(Box<dyn Stream>);

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
