//! Lets kube-apiserver 1.29 to 1.31 in: a filter in front of HTTP/2 for their `:authority`.
//!
//! Those versions send the socket's percent-encoded path as `:authority`, for instance
//! `%2Frun%2Fkleidi%2Fkms.sock`. That is no host name, and Rust's `h2` resets such a call with
//! `PROTOCOL_ERROR` before any handler runs, so that no Rust plugin on an ordinary file socket works
//! with them. From 1.32 on the value is `localhost`. A plugin has no use for either.
//!
//! # What it does
//!
//! The filter walks the client's frames and header blocks and overwrites, **in place**, the value of
//! every literal whose *name index is 1*, which is `:authority` in HPACK's static table, unless it is
//! exactly `localhost`. The length of the string stays, its Huffman flag is cleared, its bytes become
//! `a`. So no frame changes its length, padding, priority and CONTINUATION need no care, and nothing is
//! buffered but up to ten bytes of a value that may yet become `localhost`. A connection that only
//! ever says `localhost` is passed on bit for bit, without a copy.
//!
//! # Why it is sound without knowing HPACK's dynamic table
//!
//! The value is usually sent *with incremental indexing*, so it enters the table of both sides, and
//! later calls refer to it by index. HPACK counts indices from the newest entry, and both sides evict
//! the oldest entries when the table is full. As long as no entry is *larger* on the server's side than
//! on the client's, the client's table is at any time a prefix of the server's: every index the client
//! uses means the same field on both sides, through insertions, evictions and size updates. The new
//! value has as many characters as the old one has *encoded* bytes, and no encoder codes a string into
//! more bytes than it has. (If one did, it would be refused as an index out of bounds: the connection
//! ends, nothing is misread.)
//!
//! The walk goes on for the life of a connection: after some 300 calls the entry has been evicted and
//! the client sends the literal again.
//!
//! What is malformed goes through untouched from there on, and `h2` raises the error, on that
//! connection alone. Two forms are not covered because no gRPC library sends them: the name
//! `:authority` spelt out, and a dynamic-table index for the name.
//!
//! Sources: RFC 9113 sections 4 and 6, RFC 7541 sections 5 and 6; what real apiservers send was
//! captured from 1.29.6, 1.31.0 and 1.37.2 (the tests hold their bytes).

mod filter;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use filter::{AuthorityFilter, HELD_BYTES_MAX};

/// A connection whose client may send any `:authority`.
#[derive(Debug)]
pub struct AnyAuthority<S> {
    stream: S,
    filter: AuthorityFilter,
    /// Bytes that were read and not yet handed on: up to `settled` they are final, the rest is held.
    pending: Vec<u8>,
    settled: usize,
}

/// How much is read at a time while bytes are held: enough for what is missing, and seldom needed.
const PENDING_BYTES: usize = 64;

impl<S> AnyAuthority<S> {
    /// Filters what is read from `stream`, from its first byte on.
    pub fn new(stream: S) -> Self {
        Self { stream, filter: AuthorityFilter::default(), pending: Vec::new(), settled: 0 }
    }
}

impl<S: AsyncRead + Unpin> AnyAuthority<S> {
    /// Reads a little more behind the held bytes, until some of them are settled.
    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.settled == 0 && !self.pending.is_empty() {
            let mut space = [0; PENDING_BYTES];
            let mut more = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut more))?;
            if more.filled().is_empty() {
                // The client went away in the middle of a value: whatever is held is all there is.
                self.settled = self.pending.len();
            } else {
                self.pending.extend_from_slice(more.filled());
                self.settled = self.filter.apply(&mut self.pending);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(this.poll_settle(cx))?;
            if this.settled > 0 {
                let taken = this.settled.min(buf.remaining());
                buf.put_slice(&this.pending[..taken]);
                this.pending.drain(..taken);
                this.settled -= taken;
                return Poll::Ready(Ok(()));
            }
            // The usual case: nothing is held, the bytes go straight into the reader's buffer.
            let start = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let read = &mut buf.filled_mut()[start..];
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let settled = this.filter.apply(read);
            this.pending.extend_from_slice(&read[settled..]);
            buf.set_filled(start + settled);
            if settled > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
