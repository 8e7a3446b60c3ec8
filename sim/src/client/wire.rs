//! A connection's bytes: sees when the server has spoken, and has `:authority` put in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::authority::Rewriter;
use crate::edges::Stream;

/// Type of a SETTINGS frame, and where it is in a frame's header.
const SETTINGS: u8 = 4;
const TYPE_AT: usize = 3;

/// The stream beneath HTTP/2.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    /// Bytes of the server that have been read, until the type of its first frame is known.
    read: usize,
    spoken: Option<oneshot::Sender<()>>,
    rewriter: Option<Rewriter>,
    out: Vec<u8>,
    /// Dropped with this, when HTTP/2 has done with it.
    _gone: oneshot::Sender<()>,
}

/// What is learnt of a connection while it lasts.
pub(super) struct Signs {
    /// The server's SETTINGS are there; an error if the connection ended before.
    pub(super) spoken: oneshot::Receiver<()>,
    /// The connection has ended, which is an error here.
    pub(super) gone: oneshot::Receiver<()>,
}

impl Wire {
    /// `authority`: in the place of its [stand-in](super::authority::stand_in), if any.
    pub(super) fn new(stream: Box<dyn Stream>, authority: Option<String>) -> (Self, Signs) {
        let (spoken, has_spoken) = oneshot::channel();
        let (still, gone) = oneshot::channel();
        let rewriter = authority.map(Rewriter::new);
        let wire =
            Self { stream, read: 0, spoken: Some(spoken), rewriter, out: Vec::new(), _gone: still };
        (wire, Signs { spoken: has_spoken, gone })
    }

    /// grpc-go takes a connection for ready when the first frame of the server's has come, which has to be
    /// SETTINGS (`internal/transport/http2_client.go`, `readServerPreface`).
    fn watch(&mut self, bytes: &[u8]) -> io::Result<()> {
        let seen = self.read;
        self.read += bytes.len();
        if seen > TYPE_AT || self.read <= TYPE_AT {
            return Ok(());
        }
        if bytes[TYPE_AT - seen] != SETTINGS {
            let what = "the server's first frame is not SETTINGS";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if let Some(spoken) = self.spoken.take() {
            let _ = spoken.send(());
        }
        Ok(())
    }

    /// Writes what has been rewritten.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.watch(&buffer.filled()[before..]))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(rewriter) = &mut this.rewriter else {
            return Pin::new(&mut this.stream).poll_write(cx, bytes);
        };
        // Only what has been passed on makes room for more.
        if this.out.is_empty() {
            rewriter.push(bytes, &mut this.out)?;
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(this.poll_drain(cx))?;
        self.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
