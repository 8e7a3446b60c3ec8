//! Calls by hand that are cancelled while the server works on them.
//!
//! A client library cannot: whether a call that was given up had been sent, or had been answered, is not told.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::endpoint::Endpoint;
use crate::raw::{self, CANCEL, Raw, kind};

/// A connection on which Encrypts are made, and cancelled.
pub(crate) struct Caller {
    raw: Raw,
    limit: Duration,
    next: u32,
    /// Streams that were cancelled after their beginning had been sent.
    cancelled: BTreeSet<u32>,
    /// Streams that were answered.
    answered: BTreeSet<u32>,
}

impl Caller {
    /// Connects; `limit` is for each call.
    pub(crate) async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Self, String> {
        let raw = Raw::open(endpoint, limit, &[]).await?;
        let (cancelled, answered) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { raw, limit, next: 1, cancelled, answered })
    }

    /// Encrypts; an error says why there is no answer with a message.
    pub(crate) async fn encrypt(&mut self, plaintext: Vec<u8>, uid: String) -> Result<(), String> {
        let (stream, call) = self.call(plaintext, uid);
        self.raw.send(&call).await?;
        let limit = self.limit;
        let answer = timeout(limit, self.answer(stream)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    /// Begins Encrypts and cancels them: `after` a while, or, with none, in one piece with their beginning.
    pub(crate) async fn cancel(
        &mut self,
        calls: Vec<(Vec<u8>, String)>,
        after: Option<Duration>,
    ) -> Result<(), String> {
        let (mut begun, mut resets) = (Vec::new(), Vec::new());
        for (plaintext, uid) in calls {
            let (stream, call) = self.call(plaintext, uid);
            begun.extend(call);
            resets.extend(raw::frame(kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
            if after.is_some() {
                self.cancelled.insert(stream);
            }
        }
        let Some(after) = after else {
            return self.raw.send(&[begun, resets].concat()).await;
        };
        self.raw.send(&begun).await?;
        wait(after).await;
        self.raw.send(&resets).await
    }

    /// How many of the calls that were cancelled after their beginning were not answered. All are known after an
    /// Encrypt: what the server says of a call it says before it reads that nobody waits for it.
    pub(crate) fn cut(&self) -> usize {
        self.cancelled.difference(&self.answered).count()
    }

    /// Ends the connection in order.
    pub(crate) async fn close(self) {
        self.raw.close().await;
    }

    /// The next stream, and the frames of a call on it.
    fn call(&mut self, plaintext: Vec<u8>, uid: String) -> (u32, Vec<u8>) {
        let stream = self.next;
        self.next += 2;
        (stream, raw::encrypt(stream, plaintext, uid))
    }

    /// Reads until the stream has ended.
    async fn answer(&mut self, stream: u32) -> Result<(), String> {
        let mut message = false;
        loop {
            let frame = self.raw.next().await.map_err(|error| error.to_string())?;
            if let Some(reply) = frame.reply() {
                self.raw.send(&reply).await?;
            }
            if frame.ends_answer() {
                self.answered.insert(frame.stream);
            }
            if frame.stream != stream {
                continue;
            }
            message |= frame.kind == kind::DATA && !frame.payload.is_empty();
            if frame.kind == kind::RST_STREAM {
                return Err("the server reset the stream".to_owned());
            }
            if frame.ends_answer() {
                // An error has no message.
                return if message { Ok(()) } else { Err("the server refused it".to_owned()) };
            }
        }
    }
}

/// Waits; a timer is too coarse for a part of a call.
async fn wait(duration: Duration) {
    if duration > Duration::from_millis(5) {
        return sleep(duration).await;
    }
    let begin = Instant::now();
    while begin.elapsed() < duration {
        yield_now().await;
    }
}
