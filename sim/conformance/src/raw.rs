//! HTTP/2 by hand, for what no client library sends (RFC 9113, RFC 7541).

use std::time::Duration;

use kleidi_proto::kms::EncryptRequest;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::client::SERVICE;
use crate::endpoint::Endpoint;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub mod kind {
    /// A message.
    pub const DATA: u8 = 0;
    /// Headers or trailers.
    pub const HEADERS: u8 = 1;
    /// A stream ends at once; for what reason.
    pub const RST_STREAM: u8 = 3;
    /// Parameters.
    pub const SETTINGS: u8 = 4;
    /// Asks for a sign of life.
    pub const PING: u8 = 6;
    /// The connection ends.
    pub const GOAWAY: u8 = 7;
    /// The other side may send more.
    pub const WINDOW_UPDATE: u8 = 8;
}

/// END_STREAM of DATA; ACK of SETTINGS and PING.
pub const END_OR_ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Why a stream is reset: the server has not begun with the call.
pub const REFUSED_STREAM: u32 = 7;
/// Why a stream is reset: nobody waits for the answer.
pub const CANCEL: u32 = 8;

/// SETTINGS_INITIAL_WINDOW_SIZE = 0: the server may send no message.
pub const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

/// A frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// Of the type.
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it is the last one of an answer.
    #[must_use]
    pub fn ends_answer(&self) -> bool {
        self.flags & END_OR_ACK != 0 && [kind::DATA, kind::HEADERS].contains(&self.kind)
    }

    /// The frame with which a client answers it, if it has to: of the connection alone, since the answers to
    /// one call fit a stream's first window.
    #[must_use]
    pub fn reply(&self) -> Option<Vec<u8>> {
        let acknowledged = self.flags & END_OR_ACK != 0;
        match self.kind {
            kind::SETTINGS if !acknowledged => Some(frame(kind::SETTINGS, END_OR_ACK, 0, &[])),
            kind::PING if !acknowledged => Some(frame(kind::PING, END_OR_ACK, 0, &self.payload)),
            kind::DATA if !self.payload.is_empty() => {
                let length = u32::try_from(self.payload.len()).unwrap_or(0).to_be_bytes();
                Some(frame(kind::WINDOW_UPDATE, 0, 0, &length))
            }
            _ => None,
        }
    }
}

/// A frame's bytes; payloads here are far below 2^24.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The frames of a gRPC call with an empty message; see [`call`].
#[must_use]
pub fn empty_call(stream: u32, authority: &str, path: &str) -> Vec<u8> {
    call(stream, authority, path, &[])
}

/// The frames of a gRPC call with a protobuf message; texts are shorter than 127 bytes.
#[must_use]
pub fn call(stream: u32, authority: &str, path: &str, message: &[u8]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    text(&mut block, 0x04, path);
    text(&mut block, 0x01, authority);
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        text(&mut block, 0x00, name);
        block.push(u8::try_from(value.len()).unwrap_or(0));
        block.extend(value.as_bytes());
    }
    let mut bytes = frame(kind::HEADERS, END_HEADERS, stream, &block);
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    bytes.extend(frame(kind::DATA, END_OR_ACK, stream, &[&[0], &length[..], message].concat()));
    bytes
}

/// The frames of an Encrypt; see [`call`].
#[must_use]
pub fn encrypt(stream: u32, plaintext: Vec<u8>, uid: String) -> Vec<u8> {
    let message = EncryptRequest { plaintext, uid }.encode_to_vec();
    call(stream, "localhost", &format!("{SERVICE}Encrypt"), &message)
}

fn text(block: &mut Vec<u8>, index: u8, text: &str) {
    block.push(index);
    block.push(u8::try_from(text.len()).unwrap_or(0));
    block.extend(text.as_bytes());
}

/// A connection on which anything can be sent.
#[derive(Debug)]
pub struct Raw {
    stream: UnixStream,
    limit: Duration,
}

impl Raw {
    /// Connects; sends nothing yet.
    pub async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Self, String> {
        let connected = timeout(limit, UnixStream::connect(endpoint.address())).await;
        match connected {
            Ok(Ok(stream)) => Ok(Self { stream, limit }),
            Ok(Err(error)) => Err(format!("cannot connect to {endpoint}: {error}")),
            Err(_) => Err(format!("cannot connect to {endpoint} within {limit:?}")),
        }
    }

    /// Connects, and begins HTTP/2 with these settings, 6 bytes each.
    pub async fn open(
        endpoint: &Endpoint,
        limit: Duration,
        settings: &[u8],
    ) -> Result<Self, String> {
        let mut raw = Self::connect(endpoint, limit).await?;
        let hello = [PREFACE, &frame(kind::SETTINGS, 0, 0, settings)].concat();
        raw.send(&hello).await?;
        Ok(raw)
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        match timeout(self.limit, self.stream.write_all(bytes)).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err(format!("nothing was read within {:?}", self.limit)),
        }
    }

    /// Reads frames until one is `wanted`; answers them meanwhile.
    pub async fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Result<Frame, String> {
        let limit = self.limit;
        let search = async {
            loop {
                let frame = self.next().await.map_err(|error| error.to_string())?;
                if let Some(reply) = frame.reply() {
                    self.send(&reply).await?;
                }
                if wanted(&frame) {
                    return Ok(frame);
                }
            }
        };
        timeout(limit, search).await.unwrap_or_else(|_| Err(format!("not within {limit:?}")))
    }

    /// Ends the connection in order: what was not read would make a reset of it.
    pub async fn close(mut self) {
        let limit = self.limit;
        let rest = async {
            // That it has ended is what is wanted.
            let _ = self.stream.shutdown().await;
            while self.next().await.is_ok() {}
        };
        let _ = timeout(limit, rest).await;
    }

    /// Reads a frame; an error is the end.
    pub async fn next(&mut self) -> std::io::Result<Frame> {
        let mut header = [0; 9];
        self.stream.read_exact(&mut header).await?;
        let number =
            |bytes: &[u8]| bytes.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        let mut payload = vec![0; number(&header[..3]) as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok(Frame { kind: header[3], flags: header[4], stream: number(&header[5..]), payload })
    }
}
