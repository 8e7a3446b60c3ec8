//! Calls by hand that tell, at the connection's end, which were cut off.
//!
//! A client library cannot: where the server closes while it writes, a call that the server never saw
//! ends with the same error as one that was cut off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kleidi_proto::kms::EncryptRequest;
use prost::Message as _;

use crate::client::SERVICE;
use crate::endpoint::Endpoint;
use crate::raw::{self, END_OR_ACK, Frame, Raw, kind};

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
        let request = EncryptRequest {
            plaintext: vec![7; 32],
            uid: format!("00000000-0000-4000-8000-{:012}", self.next),
        };
        let path = format!("{SERVICE}Encrypt");
        let call = raw::call(self.next, "localhost", &path, &request.encode_to_vec());
        // That it can not be sent shows in what is read.
        if self.raw.send(&call).await.is_ok() {
            self.open.insert(self.next);
        }
        self.next += 2;
    }

    async fn take(&mut self, frame: Frame) {
        let ends = frame.flags & END_OR_ACK != 0;
        match frame.kind {
            kind::SETTINGS if !ends => self.send(kind::SETTINGS, END_OR_ACK, &[]).await,
            kind::PING if !ends => self.send(kind::PING, END_OR_ACK, &frame.payload).await,
            kind::GOAWAY => {
                let last =
                    frame.payload.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                // A first one may only announce that another follows.
                self.last = (last < u32::MAX >> 1).then_some(last).or(self.last);
            }
            kind::DATA if !frame.payload.is_empty() => {
                let length = u32::try_from(frame.payload.len()).unwrap_or(0).to_be_bytes();
                self.send(kind::WINDOW_UPDATE, 0, &length).await;
            }
            _ => {}
        }
        if ends
            && [kind::DATA, kind::HEADERS].contains(&frame.kind)
            && self.open.remove(&frame.stream)
        {
            self.answered.fetch_add(1, Ordering::SeqCst);
            self.call().await;
        }
    }

    async fn send(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let _ = self.raw.send(&raw::frame(kind, flags, 0, payload)).await;
    }
}
