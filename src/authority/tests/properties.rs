//! For any legal header blocks, split in any way, a decoder sees the same fields before and after,
//! `:authority` apart.

use proptest::prelude::*;

use super::client::{CONTINUATION, Frame, HEADERS, huffman, integer};
use super::{connection, filtered};

/// One thing a header block can hold.
#[derive(Debug, Clone)]
enum Item {
    /// An index into the static table, or far enough into the dynamic one to be tried.
    Indexed(usize),
    /// A literal: representation, name (an index, or a spelt one), value, Huffman or not.
    Literal {
        pattern: u8,
        name: Name,
        value: String,
        coded: bool,
    },
    TableSize(usize),
}

#[derive(Debug, Clone)]
enum Name {
    Authority,
    Static(usize),
    Spelt(String),
}

fn item() -> impl Strategy<Value = Item> {
    let value = prop_oneof![
        Just("localhost".to_owned()),
        Just("%2Frun%2Fkms.sock".to_owned()),
        "[a-zA-Z0-9%/@._-]{0,140}",
    ];
    let name = prop_oneof![
        3 => Just(Name::Authority),
        2 => (2usize..=61).prop_map(Name::Static),
        1 => "[a-z-]{1,20}".prop_map(Name::Spelt),
    ];
    prop_oneof![
        2 => (2usize..=70).prop_map(Item::Indexed),
        5 => (prop_oneof![Just(0x40u8), Just(0x10), Just(0)], name, value, any::<bool>())
            .prop_map(|(pattern, name, value, coded)| Item::Literal { pattern, name, value, coded }),
        1 => (0usize..=4096).prop_map(Item::TableSize),
    ]
}

fn write(item: &Item, out: &mut Vec<u8>) {
    match item {
        Item::Indexed(index) => integer(out, 0x80, 0x7f, *index),
        Item::TableSize(size) => integer(out, 0x20, 0x1f, *size),
        Item::Literal { pattern, name, value, coded } => {
            let mask = if *pattern == 0x40 { 0x3f } else { 0x0f };
            let text = |out: &mut Vec<u8>, text: &str| {
                if *coded {
                    return out.extend(huffman(text.as_bytes()));
                }
                integer(out, 0, 0x7f, text.len());
                out.extend(text.as_bytes());
            };
            match name {
                Name::Authority => integer(out, *pattern, mask, 1),
                Name::Static(index) => integer(out, *pattern, mask, *index),
                Name::Spelt(name) => {
                    out.push(*pattern);
                    text(out, name);
                }
            }
            text(out, value);
        }
    }
}

/// A header block: what is in it, where it is cut into frames, its padding, whether it has priority.
type Block = (Vec<Item>, Vec<usize>, Option<u8>, bool);

/// Header blocks of one connection.
fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let cuts = proptest::collection::vec(0usize..400, 0..4);
    let block = proptest::collection::vec(item(), 0..8);
    let padding = proptest::option::of(0u8..20);
    proptest::collection::vec((block, cuts, padding, any::<bool>()), 1..6)
}

/// Frames of one block: HEADERS, perhaps padded and with priority, then CONTINUATIONs.
fn frames(block: &[u8], cuts: &[usize], padding: Option<u8>, priority: bool) -> Vec<Frame> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.min(&block.len())).collect();
    cuts.sort_unstable();
    cuts.push(block.len());
    let mut start = 0;
    let mut frames = Vec::new();
    for (n, &end) in cuts.iter().enumerate() {
        let last = if n + 1 == cuts.len() { 0x4 } else { 0 };
        let piece = &block[start..end];
        start = end;
        if n > 0 {
            frames.push(Frame::new(CONTINUATION, last, 1, piece.to_vec()));
            continue;
        }
        let mut payload = Vec::new();
        payload.extend(padding);
        payload.extend_from_slice(if priority { &[0, 0, 0, 7, 1] } else { &[] });
        payload.extend_from_slice(piece);
        payload.extend(vec![0; usize::from(padding.unwrap_or(0))]);
        let flags =
            last | if padding.is_some() { 0x8 } else { 0 } | if priority { 0x20 } else { 0 };
        frames.push(Frame::new(HEADERS, flags, 1, payload));
    }
    frames
}

/// The header blocks in a stream of frames, by an independent reading of it.
fn blocks_of(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes = &bytes[super::PREFACE.len()..];
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
        let mut payload = &rest[..length];
        bytes = &rest[length..];
        match *kind {
            HEADERS => {
                let mut padding = 0;
                if flags & 0x8 != 0 {
                    padding = usize::from(payload[0]);
                    payload = &payload[1..];
                }
                payload = &payload[..payload.len() - padding];
                if flags & 0x20 != 0 {
                    payload = &payload[5..];
                }
                blocks.push(payload.to_vec());
            }
            CONTINUATION => blocks.last_mut().unwrap().extend(payload),
            _ => {}
        }
    }
    blocks
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn decode(decoder: &mut loona_hpack::Decoder<'_>, block: &[u8]) -> Option<Fields> {
    decoder.decode(block).ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn only_authority_changes(
        connection_blocks in blocks(),
        cuts in proptest::collection::vec(0usize..2000, 0..12),
    ) {
        let mut all = Vec::new();
        for (items, frame_cuts, padding, priority) in &connection_blocks {
            let mut block = Vec::new();
            // A table size update is legal at the beginning of a block only.
            let (sizes, fields): (Vec<_>, Vec<_>) =
                items.iter().partition(|item| matches!(item, Item::TableSize(_)));
            sizes.into_iter().chain(fields).for_each(|item| write(item, &mut block));
            all.extend(frames(&block, frame_cuts, *padding, *priority));
        }
        let bytes = connection(all);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.min(&bytes.len())).collect();
        cuts.sort_unstable();

        let after = filtered(&bytes, &cuts);
        prop_assert_eq!(&after, &filtered(&bytes, &[]), "how the bytes arrive makes no difference");
        prop_assert_eq!(after.len(), bytes.len());

        let (mut left, mut right) = (loona_hpack::Decoder::new(), loona_hpack::Decoder::new());
        for (before, after) in blocks_of(&bytes).iter().zip(blocks_of(&after)) {
            let (Some(before), after) = (decode(&mut left, before), decode(&mut right, &after)) else {
                // An index out of bounds: the connection would have ended here.
                break;
            };
            let after = after.expect("what could be read before can be read after");
            prop_assert_eq!(before.len(), after.len());
            for ((name, old), (new_name, new)) in before.iter().zip(&after) {
                prop_assert_eq!(name, new_name);
                if name != b":authority" || old == b"localhost" && new == b"localhost" {
                    prop_assert_eq!(old, new);
                } else {
                    prop_assert!(new.len() <= old.len(), "sound: never longer than it was");
                    prop_assert!(new.iter().all(|byte| *byte == b'a'), "a legal host name");
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_survived_and_kept_in_number(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in proptest::collection::vec(0usize..340, 0..6),
        after_preface in any::<bool>(),
    ) {
        let bytes = if after_preface { [super::PREFACE, &noise].concat() } else { noise };
        let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.min(&bytes.len())).collect();
        cuts.sort_unstable();
        let after = filtered(&bytes, &cuts);
        prop_assert_eq!(after.len(), bytes.len());
        prop_assert_eq!(after, filtered(&bytes, &[]));
    }
}
