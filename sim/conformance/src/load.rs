//! Calls by hand that tell, at the connection's end, which were cut off.
//!
//! A client library cannot: where the server closes while it writes, a call that the server never saw
//! ends with the same error as one that was cut off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::raw::{self, Frame, REFUSED_STREAM, Raw, kind};

/// Calls in flight at a time.
const IN_FLIGHT: u32 = 8;

/// Encrypts on one connection, until it ends.
pub(crate) struct Load {
    raw: Raw,
    /// How many calls have been answered.
    pub(crate) answered: Arc<AtomicUsize>,
    /// Streams of calls that have not.
    open: BTreeSet<u32>,
    next: u32,
    /// The last stream that the server will answer, if it said so.
    last: Option<u32>,
}

impl Load {
    /// Connects.
    pub(crate) async fn begin(endpoint: &Endpoint, limit: Duration) -> Result<Self, String> {
        let raw = Raw::open(endpoint, limit, &[]).await?;
        Ok(Self { raw, answered: Arc::default(), open: BTreeSet::new(), next: 1, last: None })
    }

    /// Keeps calls going until the connection ends; gives how many were cut off.
    pub(crate) async fn run(mut self) -> usize {
        for _ in 0..IN_FLIGHT {
            self.call().await;
        }
        while let Ok(frame) = self.raw.next().await {
            self.take(frame).await;
        }
        let begun = self.last.unwrap_or(u32::MAX);
        self.open.iter().filter(|stream| **stream <= begun).count()
    }

    async fn call(&mut self) {
        if self.last.is_some() {
            return;
        }
        let uid = format!("00000000-0000-4000-8000-{:012}", self.next);
        let call = raw::encrypt(self.next, vec![7; 32], uid);
        // That it can not be sent shows in what is read.
        if self.raw.send(&call).await.is_ok() {
            self.open.insert(self.next);
        }
        self.next += 2;
    }

    async fn take(&mut self, frame: Frame) {
        if let Some(reply) = frame.reply() {
            // That it can not be sent shows in what is read.
            let _ = self.raw.send(&reply).await;
        }
        match frame.kind {
            kind::GOAWAY => {
                let last = number(&frame.payload);
                // A first one may only announce that another follows.
                self.last = (last < u32::MAX >> 1).then_some(last).or(self.last);
            }
            // As good as a GOAWAY, for this call: nothing of it was done (RFC 9113, 8.7).
            kind::RST_STREAM if number(&frame.payload) == REFUSED_STREAM => {
                self.open.remove(&frame.stream);
            }
            _ => {}
        }
        if frame.ends_answer() && self.open.remove(&frame.stream) {
            self.answered.fetch_add(1, Ordering::SeqCst);
            self.call().await;
        }
    }
}

/// The first four bytes.
fn number(payload: &[u8]) -> u32 {
    payload.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixListener;

    use super::*;
    use crate::raw::CANCEL;

    /// How many calls count as cut off where the server resets each, for this reason.
    async fn cut_off(reason: u32) -> usize {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let endpoint = socket.display().to_string().parse().unwrap();
        let load = Load::begin(&endpoint, Duration::from_secs(60)).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        for call in 0..IN_FLIGHT {
            let reset = raw::frame(kind::RST_STREAM, 0, 2 * call + 1, &reason.to_be_bytes());
            server.write_all(&reset).await.unwrap();
        }
        server.shutdown().await.unwrap();
        load.run().await
    }

    #[tokio::test]
    async fn a_call_that_the_server_has_not_begun_is_not_cut_off() {
        assert_eq!(cut_off(REFUSED_STREAM).await, 0);
        assert_eq!(cut_off(CANCEL).await, IN_FLIGHT as usize);
    }
}
