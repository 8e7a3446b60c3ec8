//! What the filter lets through, what it rewrites, and that nothing depends on how bytes arrive.

mod client;
mod properties;

use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::{AnyAuthority, AuthorityFilter, HELD_BYTES_MAX};
use client::{CONTINUATION, Client, Frame, HEADERS, PREFACE};

/// First HEADERS payload of a kube-apiserver 1.37.2 on a file socket, as captured.
const BLOCK_1_37_2: &str = "8386459763b897cc5f5a0750e62d25a93b8b677310ac6e48d36a3f4186a0e41d139d095f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602bbc25c340027465864d833505b11f408e9acac8b0c842d6958b510f21aa9b839bd9ab40899acac8b24d494f6a7f8613ef3e17436f";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// Runs `bytes` through a fresh filter in pieces that end at `cuts`.
fn filtered(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut filter = AuthorityFilter::default();
    let (mut out, mut held, mut start) = (Vec::new(), Vec::new(), 0);
    for &end in cuts.iter().chain([&bytes.len()]) {
        held.extend_from_slice(&bytes[start..end]);
        start = end;
        let settled = filter.apply(&mut held);
        assert!(held.len() - settled <= HELD_BYTES_MAX);
        out.extend(held.drain(..settled));
    }
    out.extend(held);
    out
}

/// A connection's first bytes with one header block in the given frames.
fn connection(frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    Frame::new(4, 0, 0, Vec::new()).write(&mut bytes);
    frames.into_iter().for_each(|frame| frame.write(&mut bytes));
    bytes
}

#[test]
fn what_a_recent_apiserver_sends_is_not_touched() {
    let bytes = connection([Frame::new(HEADERS, 0x4, 1, unhex(BLOCK_1_37_2))]);
    assert_eq!(filtered(&bytes, &[]), bytes);
    let every_byte: Vec<_> = (1..bytes.len()).collect();
    assert_eq!(filtered(&bytes, &every_byte), bytes);
}

#[test]
fn a_path_is_overwritten_in_place_whatever_the_frames() {
    let path = client::huffman(b"%2Frun%2Fkleidi%2Fkms.sock");
    let block = [&[0x83, 0x86, 0x41][..], &path, &[0x84]].concat();
    let mut wanted = block.clone();
    wanted[3] &= 0x7f;
    wanted[4..3 + path.len()].fill(b'a');

    let priority = [0, 0, 0, 3, 15];
    let padded = |block: &[u8]| [&[4][..], block, &[0; 4]].concat();
    let padded_priority = |block: &[u8]| [&[2][..], &priority, block, &[0; 2]].concat();
    let split = |block: &[u8], at: usize| {
        vec![
            Frame::new(HEADERS, 0, 1, block[..at].to_vec()),
            Frame::new(CONTINUATION, 0, 1, Vec::new()),
            Frame::new(CONTINUATION, 0x4, 1, block[at..].to_vec()),
        ]
    };
    let mut shapes: Vec<[Vec<Frame>; 2]> = vec![
        [&block, &wanted].map(|b| vec![Frame::new(HEADERS, 0x4, 1, b.clone())]),
        [&block, &wanted].map(|b| vec![Frame::new(HEADERS, 0xc, 1, padded(b))]),
        [&block, &wanted].map(|b| vec![Frame::new(HEADERS, 0x24, 1, [&priority[..], b].concat())]),
        [&block, &wanted].map(|b| vec![Frame::new(HEADERS, 0x2c, 1, padded_priority(b))]),
    ];
    shapes.extend((0..=block.len()).map(|at| [split(&block, at), split(&wanted, at)]));
    for [input, output] in shapes {
        let (input, output) = (connection(input), connection(output));
        assert_eq!(filtered(&input, &[]), output);
        assert_eq!(filtered(&input, &(1..input.len()).collect::<Vec<_>>()), output);
    }
}

#[test]
fn malformed_input_goes_through_untouched() {
    let path = client::huffman(b"%2Frun%2Fkms.sock");
    let literal = [&[0x41][..], &path].concat();
    let ok = Frame::new(HEADERS, 0x4, 3, literal.clone());
    for (what, bytes) in [
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("index 0", connection([Frame::new(HEADERS, 0x4, 1, vec![0x80]), ok.clone()])),
        ("integer too long", connection([Frame::new(HEADERS, 0x4, 1, vec![0xff; 9]), ok.clone()])),
        (
            "block ends in a string",
            connection([Frame::new(HEADERS, 0x4, 1, vec![0x44, 9, b'/']), ok.clone()]),
        ),
        (
            "padding longer than the frame",
            connection([Frame::new(HEADERS, 0xc, 1, vec![9, 0x82]), ok.clone()]),
        ),
        ("no pad length", connection([Frame::new(HEADERS, 0xc, 1, Vec::new()), ok.clone()])),
        (
            "no room for priority",
            connection([Frame::new(HEADERS, 0x24, 1, vec![0; 4]), ok.clone()]),
        ),
        (
            "continuation of nothing",
            connection([Frame::new(CONTINUATION, 0x4, 1, literal.clone()), ok.clone()]),
        ),
        (
            "data inside a block",
            connection([
                Frame::new(HEADERS, 0, 1, vec![0x82]),
                Frame::new(0, 0, 1, vec![1, 2, 3]),
                ok.clone(),
            ]),
        ),
        ("headers inside a block", connection([Frame::new(HEADERS, 0, 1, vec![0x82]), ok])),
    ] {
        assert_eq!(filtered(&bytes, &[]), bytes, "{what}");
        let every_byte: Vec<_> = (1..bytes.len()).collect();
        assert_eq!(filtered(&bytes, &every_byte), bytes, "{what}");
    }
}

/// A real HTTP/2 server behind the filter (or not) and the client's end of its connection.
fn server(with_filter: bool) -> (DuplexStream, Arc<Mutex<Vec<String>>>) {
    let (ours, theirs) = tokio::io::duplex(4096);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let service = service_fn(move |request: http::Request<Incoming>| {
        record.lock().unwrap().push(request.uri().path().to_owned());
        async { Ok::<_, std::convert::Infallible>(http::Response::new(tonic::body::Body::empty())) }
    });
    tokio::spawn(async move {
        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = if with_filter {
            http2.serve_connection(TokioIo::new(AnyAuthority::new(theirs)), service).await
        } else {
            http2.serve_connection(TokioIo::new(theirs), service).await
        };
    });
    (ours, seen)
}

/// Makes `calls` calls in groups of ten and counts (answered, reset).
async fn call(stream: DuplexStream, authority: &'static str, calls: usize) -> (usize, usize) {
    let (mut from_server, mut to_server) = tokio::io::split(stream);
    let mut client = Client::new();
    let writer = tokio::spawn(async move {
        let mut bytes = connection([]);
        for call in 0..calls {
            client.request(authority, call).into_iter().for_each(|frame| frame.write(&mut bytes));
            to_server.write_all(&bytes).await.unwrap();
            bytes.clear();
        }
        (to_server, client.evictions)
    });
    let (mut answered, mut reset) = (0, 0);
    while answered + reset < calls {
        let mut header = [0; 9];
        from_server.read_exact(&mut header).await.expect("the connection stays open");
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        from_server.read_exact(&mut payload).await.unwrap();
        match (header[3], header[4] & 1) {
            (0x1 | 0x0, 1) => answered += 1,
            (0x3, _) => reset += 1,
            (0x7, _) => panic!("GOAWAY {payload:?}"),
            _ => {}
        }
    }
    let (_, evictions) = writer.await.unwrap();
    if calls > 500 {
        assert!(evictions > 1, ":authority must have been evicted and sent again");
    }
    (answered, reset)
}

#[tokio::test]
async fn a_thousand_calls_on_one_connection_outlive_every_eviction() {
    for authority in ["%2Frun%2Fkleidi%2Fkms.sock", "/run/kms.sock", "@a/b.sock", "localhost"] {
        let (stream, seen) = server(true);
        assert_eq!(call(stream, authority, 1000).await, (1000, 0), "{authority}");
        assert!(seen.lock().unwrap().iter().all(|path| path.starts_with("/v2.Key")));
    }
}

#[tokio::test]
async fn without_the_filter_every_call_is_reset() {
    let (stream, seen) = server(false);
    assert_eq!(call(stream, "%2Frun%2Fkleidi%2Fkms.sock", 10).await, (0, 10));
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn readers_with_tiny_buffers_get_the_same_bytes() {
    let path = client::huffman(b"%2Frun%2Fkms.sock");
    let block = [unhex(BLOCK_1_37_2), vec![0x41], path].concat();
    let bytes = connection([Frame::new(HEADERS, 0x4, 1, block)]);
    let wanted = filtered(&bytes, &[]);
    for (chunk, buffer) in [(1, 1), (7, 3), (64, 2), (3, 64)] {
        let (mut sender, receiver) = tokio::io::duplex(chunk);
        let sent = bytes.clone();
        tokio::spawn(async move { sender.write_all(&sent).await.unwrap() });
        let mut reader = AnyAuthority::new(receiver);
        let (mut got, mut space) = (Vec::new(), vec![0; buffer]);
        loop {
            match reader.read(&mut space).await.unwrap() {
                0 => break,
                n => got.extend_from_slice(&space[..n]),
            }
        }
        assert_eq!(got, wanted, "chunk {chunk}, buffer {buffer}");
    }
}

/// A client that goes away in the middle of a value: what it sent arrives, then the end.
#[tokio::test]
async fn held_bytes_are_handed_on_at_the_end() {
    let mut bytes = connection([Frame::new(HEADERS, 0x4, 1, unhex("4186a0e41d139d09"))]);
    bytes.truncate(bytes.len() - 2);
    let mut reader = AnyAuthority::new(&bytes[..]);
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, bytes);
}
