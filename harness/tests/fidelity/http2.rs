//! As much of an HTTP/2 server as records what a gRPC client sends: frames as they are, every `:authority`.
//!
//! A server library would refuse what kube-apiserver sends before 1.32, and hide who dials when.

use loona_hpack::Decoder;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc::UnboundedSender;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const WINDOW_UPDATE: u8 = 8;
}

mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// What a client did.
pub enum Input {
    /// A call began: its headers.
    Headers(u32, Vec<(String, String)>),
    /// A part of a call's message, and whether it is the last.
    Data(u32, Vec<u8>, bool),
    /// A call was given up.
    Reset(u32),
}

/// Reads what a client sends, and answers what HTTP/2 itself wants answered.
pub struct Reader<R> {
    stream: R,
    decoder: Decoder<'static>,
    out: UnboundedSender<Vec<u8>>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads the client's preface and sends this side's.
    pub async fn open(mut stream: R, out: UnboundedSender<Vec<u8>>) -> Option<Self> {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.ok()?;
        assert_eq!(preface, PREFACE, "the client speaks HTTP/2 with prior knowledge");
        let _ = out.send(frame(kind::SETTINGS, 0, 0, &[]));
        Some(Self { stream, decoder: Decoder::new(), out })
    }

    /// The next thing of interest; nothing once the connection is at its end.
    pub async fn next(&mut self) -> Option<Input> {
        loop {
            let mut header = [0; 9];
            self.stream.read_exact(&mut header).await.ok()?;
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let (kind, flags) = (header[3], header[4]);
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            match kind {
                kind::SETTINGS if flags & flag::ACK == 0 => {
                    self.send(frame(kind::SETTINGS, flag::ACK, 0, &[]));
                }
                kind::PING if flags & flag::ACK == 0 => {
                    self.send(frame(kind::PING, flag::ACK, 0, &payload));
                }
                kind::HEADERS => {
                    let odd = flag::PADDED | flag::PRIORITY;
                    assert_eq!(flags & odd, 0, "never seen of grpc-go");
                    assert_ne!(flags & flag::END_HEADERS, 0, "never seen of grpc-go");
                    let headers = self.decoder.decode(&payload).expect("HPACK");
                    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                    let headers = headers.into_iter().map(|(n, v)| (text(n), text(v))).collect();
                    return Some(Input::Headers(stream, headers));
                }
                kind::DATA => {
                    if length > 0 {
                        self.send(frame(kind::WINDOW_UPDATE, 0, 0, &length.to_be_bytes()));
                    }
                    return Some(Input::Data(stream, payload, flags & flag::END_STREAM != 0));
                }
                kind::RST_STREAM => return Some(Input::Reset(stream)),
                _ => {}
            }
        }
    }

    fn send(&self, frame: Vec<u8>) {
        let _ = self.out.send(frame);
    }
}

/// The frames of a good answer with this message.
pub fn answer(stream: u32, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    let body = [&[0][..], &length.to_be_bytes(), message].concat();
    [
        frame(kind::HEADERS, flag::END_HEADERS, stream, &begin()),
        frame(kind::DATA, 0, stream, &body),
        end(stream, &literal("grpc-status", "0")),
    ]
    .concat()
}

/// The frames of an error with gRPC's code 14, Unavailable.
pub fn unavailable(stream: u32, text: &str) -> Vec<u8> {
    let status = [begin(), literal("grpc-status", "14"), literal("grpc-message", text)].concat();
    end(stream, &status)
}

fn end(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, block)
}

/// `:status: 200`, from the static table, and the content's type.
fn begin() -> Vec<u8> {
    [vec![0x88], literal("content-type", "application/grpc")].concat()
}

/// A header that goes into no table. All are short.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let counted = |text: &str| {
        let length = u8::try_from(text.len()).expect("a short header");
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], counted(name), counted(value)].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}
