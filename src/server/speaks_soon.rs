//! A connection that has to say something soon.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits;

/// A stream that fails if nothing comes for [`limits::FIRST_BYTE_TIMEOUT`] at its beginning.
///
/// Clients speak first in HTTP/2. What connects and says nothing, for instance a probe that forgets to
/// close, would use up the connections in the end. After its first byte a client may be silent for as
/// long as it likes: kube-apiserver is, between two calls.
pub(super) struct SpeaksSoon<S> {
    stream: S,
    /// `None` once it has spoken.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> SpeaksSoon<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, patience: Some(Box::pin(sleep(limits::FIRST_BYTE_TIMEOUT))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SpeaksSoon<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(outcome) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            self.patience = None;
            return Poll::Ready(outcome);
        }
        if let Some(patience) = &mut self.patience {
            ready!(patience.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SpeaksSoon<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
