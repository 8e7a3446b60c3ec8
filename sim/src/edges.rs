//! What the driver needs of the world: sockets, the time, random bytes. A simulation hands in its own.

mod os;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kleidi_proto::kms::{DecryptResponse, EncryptResponse, StatusResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::time::Time;

/// A connected socket.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that is being made.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Makes connections.
pub trait Dial: Send + Sync {
    /// Connects to the Unix socket with this address: a path, or `@` and an abstract name.
    fn dial(&self, address: &[u8]) -> Dialing;
}

/// Makes random bytes.
pub trait Random: Send + Sync {
    /// Fills `bytes`; they are not to be used if that failed.
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()>;
}

/// Is told of each call.
pub trait Watch: Send + Sync {
    /// This seed is about to be sent, to be wrapped.
    fn sends(&self, _seed: &[u8]) {}

    /// A call has ended: of `method` of the plugin `name`; it began at `began` and took `took`.
    fn called(&self, name: &str, method: &str, began: Time, took: Duration, outcome: Outcome);
}

/// What came of a call.
pub type Outcome<'a> = Result<Answer<'a>, &'a tonic::Status>;

/// What a plugin answered.
#[derive(Clone, Copy)]
pub enum Answer<'a> {
    /// To Status.
    Status(&'a StatusResponse),
    /// To Encrypt.
    Encrypt(&'a EncryptResponse),
    /// To Decrypt.
    Decrypt(&'a DecryptResponse),
}

impl Answer<'_> {
    /// The key that it names, if it does.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        match self {
            Self::Status(answer) => Some(&answer.key_id),
            Self::Encrypt(answer) => Some(&answer.key_id),
            Self::Decrypt(_) => None,
        }
    }
}

/// The time: that of tokio, which can be paused, from a known moment on.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    then: Time,
    start: Instant,
}

impl Clock {
    /// A clock that says `now` now.
    #[must_use]
    pub fn at(now: Time) -> Self {
        Self { then: now, start: Instant::now() }
    }

    /// What it says.
    #[must_use]
    pub fn now(&self) -> Time {
        self.then + self.start.elapsed()
    }
}

/// All of them.
#[derive(Clone)]
pub struct Edges {
    /// Makes connections.
    pub dial: Arc<dyn Dial>,
    /// Says what time it is.
    pub clock: Clock,
    /// Makes random bytes.
    pub random: Arc<dyn Random>,
    /// Is told of calls.
    pub watch: Option<Arc<dyn Watch>>,
}

impl Edges {
    /// So many random bytes.
    pub(crate) fn bytes<const BYTES: usize>(&self) -> Result<[u8; BYTES], String> {
        let mut bytes = [0; BYTES];
        match self.random.fill(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(format!("no random bytes are to be had: {error}")),
        }
    }

    /// A fresh UUIDv4, in its 36 characters.
    pub(crate) fn uid(&self) -> Result<String, String> {
        let mut bytes: [u8; 16] = self.bytes()?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [&hex[..4], &hex[4..6], &hex[6..8], &hex[8..10], &hex[10..]];
        Ok(parts.map(<[String]>::concat).join("-"))
    }
}
