//! The filter in front of HTTP/2.

use kleidi::authority::{AuthorityFilter, HELD_BYTES_MAX};

/// The connection preface that every HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;

/// The first byte says in how large pieces the rest arrives: what comes out is as long, does not hang on the
/// pieces, and goes through again unchanged. Headers that could be read can be read, and are the same but for
/// `:authority`.
pub fn authority_filter(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let after = filtered(bytes, bytes.len().max(1));
    assert_eq!(after.len(), bytes.len());
    assert_eq!(after, filtered(bytes, usize::from(*piece).max(1)), "in pieces of {piece}");
    assert_eq!(after, filtered(&after, after.len().max(1)), "filtered again");
    same_but_for_authority(&blocks(bytes), &blocks(&after));
}

fn filtered(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut filter = AuthorityFilter::default();
    let (mut out, mut held) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        held.extend_from_slice(piece);
        let settled = filter.apply(&mut held);
        assert!(held.len() - settled <= HELD_BYTES_MAX);
        out.extend(held.drain(..settled));
    }
    [out, held].concat()
}

fn same_but_for_authority(before: &[Vec<u8>], after: &[Vec<u8>]) {
    assert_eq!(before.len(), after.len());
    let (mut left, mut right) = (loona_hpack::Decoder::new(), loona_hpack::Decoder::new());
    for (before, after) in before.iter().zip(after) {
        // The connection ends where a block cannot be read.
        let Ok(before) = left.decode(before) else { return };
        let after = right.decode(after).unwrap();
        assert_eq!(before.len(), after.len());
        for ((name, old), (new_name, new)) in before.iter().zip(&after) {
            assert_eq!(name, new_name);
            if old != new {
                assert_eq!(&**name, b":authority");
                assert!(new.iter().all(|byte| *byte == b'a'), "a legal host name");
                // No encoder makes a value longer by coding it; from there on the tables may differ.
                if new.len() > old.len() {
                    return;
                }
            }
        }
    }
}

/// The header blocks of a stream of frames, up to the first frame that is not as it should be.
fn blocks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let Some(mut bytes) = bytes.strip_prefix(PREFACE) else { return Vec::new() };
    let (mut blocks, mut open): (Vec<Vec<u8>>, Option<Vec<u8>>) = (Vec::new(), None);
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        bytes = rest;
        let block = match (*kind, open.take()) {
            (HEADERS, None) => fragment(payload, *flags).map(<[u8]>::to_vec),
            (CONTINUATION, Some(block)) => Some([&block, payload].concat()),
            (HEADERS | CONTINUATION, _) | (_, Some(_)) => None,
            (_, None) => continue,
        };
        match block {
            None => break,
            Some(block) if flags & 0x4 != 0 => blocks.push(block),
            Some(block) => open = Some(block),
        }
    }
    blocks
}

/// A HEADERS frame's piece of a block, without padding and priority.
fn fragment(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let (padding, payload) = match payload {
        [padding, rest @ ..] if flags & 0x8 != 0 => (usize::from(*padding), rest),
        [] if flags & 0x8 != 0 => return None,
        payload => (0, payload),
    };
    let payload = payload.get(if flags & 0x20 == 0 { 0 } else { 5 }..)?;
    payload.get(..payload.len().checked_sub(padding)?)
}
