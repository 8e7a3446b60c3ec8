//! The smallest HTTP/2 client that compresses headers as grpc-go does.

use std::collections::VecDeque;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const HEADERS: u8 = 0x1;
pub(super) const CONTINUATION: u8 = 0x9;

#[derive(Debug, Clone)]
pub(super) struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    pub(super) fn new(kind: u8, flags: u8, stream: u32, payload: Vec<u8>) -> Self {
        Self { kind, flags, stream, payload }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(&u32::try_from(self.payload.len()).unwrap().to_be_bytes()[1..]);
        out.extend([self.kind, self.flags]);
        out.extend(self.stream.to_be_bytes());
        out.extend(&self.payload);
    }
}

/// `text` as an HPACK string: Huffman-coded where that is shorter, as grpc-go does it.
pub(super) fn huffman(text: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    httlib_huffman::encode(text, &mut coded).unwrap();
    let (flag, bytes) = if coded.len() < text.len() { (0x80, &coded[..]) } else { (0, text) };
    let mut out = Vec::new();
    integer(&mut out, flag, 0x7f, bytes.len());
    out.extend(bytes);
    out
}

/// An HPACK integer behind the bits of `pattern`.
pub(super) fn integer(out: &mut Vec<u8>, pattern: u8, mask: u8, value: usize) {
    match u8::try_from(value) {
        Ok(value) if value < mask => out.push(pattern | value),
        _ => {
            out.push(pattern | mask);
            let mut rest = value - usize::from(mask);
            while rest >= 0x80 {
                out.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
                rest >>= 7;
            }
            out.push(u8::try_from(rest).unwrap());
        }
    }
}

/// A gRPC client's header compression: everything is indexed, so entries age and are evicted.
pub(super) struct Client {
    /// Newest first.
    table: VecDeque<(String, String)>,
    /// How often `:authority` has been written as a literal.
    pub(super) evictions: usize,
}

/// Names that grpc-go finds in the static table.
fn static_name(name: &str) -> usize {
    match name {
        ":authority" => 1,
        ":path" => 5,
        "content-type" => 31,
        "user-agent" => 58,
        _ => 0,
    }
}

impl Client {
    pub(super) fn new() -> Self {
        Self { table: VecDeque::new(), evictions: 0 }
    }

    /// One call with an empty body, in the order of headers that real apiservers use.
    pub(super) fn request(&mut self, authority: &str, call: usize) -> Vec<Frame> {
        let method = ["Status", "Encrypt", "Decrypt"][call % 3];
        let mut block = vec![0x83, 0x86];
        for (name, value) in [
            (":path", format!("/v2.KeyManagementService/{method}")),
            (":authority", authority.to_owned()),
            ("content-type", "application/grpc".to_owned()),
            ("user-agent", "grpc-go/1.65.0".to_owned()),
            ("te", "trailers".to_owned()),
            ("grpc-timeout", format!("{}u", 2_990_000 + call)),
        ] {
            self.field(&mut block, name, &value);
        }
        let stream = u32::try_from(call * 2 + 1).unwrap();
        // END_HEADERS and END_STREAM.
        vec![Frame::new(HEADERS, 0x5, stream, block)]
    }

    fn field(&mut self, block: &mut Vec<u8>, name: &str, value: &str) {
        if let Some(at) = self.table.iter().position(|(n, v)| n == name && v == value) {
            return integer(block, 0x80, 0x7f, 62 + at);
        }
        self.evictions += usize::from(name == ":authority");
        let known = self.table.iter().position(|(n, _)| n == name).map(|at| 62 + at);
        match (static_name(name), known) {
            (0, None) => {
                block.push(0x40);
                block.extend(huffman(name.as_bytes()));
            }
            (0, Some(index)) | (index, _) => integer(block, 0x40, 0x3f, index),
        }
        block.extend(huffman(value.as_bytes()));
        self.table.push_front((name.to_owned(), value.to_owned()));
        let size = |t: &VecDeque<(String, String)>| -> usize {
            t.iter().map(|(n, v)| n.len() + v.len() + 32).sum()
        };
        while size(&self.table) > 4096 {
            self.table.pop_back();
        }
    }
}
