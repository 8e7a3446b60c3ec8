//! Puts into outgoing HTTP/2 the `:authority` that kube-apiserver sends before 1.32, the socket's escaped
//! path, which Rust's HTTP libraries refuse to send.
//!
//! They send a stand-in of the same length, so that the server's table of headers evicts what the client
//! believes it evicts; here each literal with it gets the real value.

use std::io;

const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;

/// Type of a HEADERS frame.
const HEADERS: u8 = 1;

/// Index of `:authority` in HPACK's static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;

/// A legal host of the same length.
pub(super) fn stand_in(authority: &str) -> String {
    "a".repeat(authority.len().max(1))
}

/// Replaces the stand-in in a stream of frames.
pub(super) struct Rewriter {
    authority: String,
    /// What is not a whole frame yet.
    held: Vec<u8>,
    begun: bool,
}

impl Rewriter {
    pub(super) fn new(authority: String) -> Self {
        Self { authority, held: Vec::new(), begun: false }
    }

    /// Takes the next bytes; whole frames go to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        let mut rest = self.held.as_slice();
        if !self.begun {
            let Some((preface, frames)) = rest.split_at_checked(PREFACE_BYTES) else {
                return Ok(());
            };
            out.extend_from_slice(preface);
            (self.begun, rest) = (true, frames);
        }
        while let Some((header, behind)) = rest.split_at_checked(FRAME_HEADER_BYTES) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            if header[3] == HEADERS {
                let block = self.rewritten(payload).ok_or(io::ErrorKind::InvalidData)?;
                let length = u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes();
                out.extend_from_slice(&length[1..]);
                out.extend_from_slice(&header[3..]);
                out.extend_from_slice(&block);
            } else {
                out.extend_from_slice(header);
                out.extend_from_slice(payload);
            }
            rest = behind;
        }
        self.held = rest.to_vec();
        Ok(())
    }

    /// A header block with the real value; nothing if it is no HPACK.
    fn rewritten(&self, block: &[u8]) -> Option<Vec<u8>> {
        let (mut out, mut rest) = (Vec::with_capacity(block.len()), block);
        while let Some(&first) = rest.first() {
            // Prefixes of RFC 7541, 6.1 to 6.3: how many bits the integer has, and whether strings follow.
            let (bits, literal) = match first {
                0x80.. => (7, false),
                0x40.. => (6, true),
                0x20.. => (5, false),
                _ => (4, true),
            };
            let (index, mut end) = integer(rest, bits)?;
            if literal {
                if index == 0 {
                    end += string(&rest[end..])?;
                }
                let value = string(&rest[end..])?;
                if index == AUTHORITY {
                    out.extend_from_slice(&rest[..end]);
                    raw(self.authority.as_bytes(), &mut out);
                    rest = &rest[end + value..];
                    continue;
                }
                end += value;
            }
            out.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        }
        Some(out)
    }
}

/// An integer with a prefix of so many bits (RFC 7541, 5.1), and how many bytes it has.
fn integer(bytes: &[u8], bits: u32) -> Option<(usize, usize)> {
    let mask = (1 << bits) - 1;
    let mut value = usize::from(*bytes.first()?) & mask;
    if value < mask {
        return Some((value, 1));
    }
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        value += usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// How many bytes a string has, its length included.
fn string(bytes: &[u8]) -> Option<usize> {
    let (length, header) = integer(bytes, 7)?;
    (bytes.len() >= header + length).then_some(header + length)
}

/// A string without Huffman's code.
fn raw(text: &[u8], out: &mut Vec<u8>) {
    if let Ok(length @ ..127) = u8::try_from(text.len()) {
        out.push(length);
    } else {
        out.push(127);
        let mut rest = text.len().saturating_sub(127);
        while rest >= 128 {
            out.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
            rest >>= 7;
        }
        out.push(u8::try_from(rest).unwrap_or_default());
    }
    out.extend_from_slice(text);
}
