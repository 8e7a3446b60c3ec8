//! What is done to the text of a document.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What is done to the text.
#[derive(Debug, Clone)]
pub enum Edit {
    Insert(Index, &'static str),
    Cut(Index),
    Delete(Index),
    Before(&'static str),
    After(&'static str),
}

pub fn edit() -> impl Strategy<Value = Edit> {
    let pieces = vec![" ", ":", ": ", " #", ",", "{", "}", "[", "]", "'", "\"", "!!str "];
    let before = vec![
        "---\n",
        "%YAML 1.1\n---\n",
        "%YAML 1.2\n---\n",
        "# c\n",
        "\n",
        " ",
        "--- ",
        "\n\n---\n",
    ];
    let after = vec![
        "\n---\n",
        "\n---\na: b\n",
        "\n...\n",
        "\n# c",
        "\n...\nx",
        "\n[",
        "\nmetadata: {}\n",
        " ",
        "\n---\n]",
        "\u{0}",
    ];
    prop_oneof![
        4 => (any::<Index>(), select(pieces)).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        1 => any::<Index>().prop_map(Edit::Cut),
        2 => any::<Index>().prop_map(Edit::Delete),
        1 => select(before).prop_map(Edit::Before),
        1 => select(after).prop_map(Edit::After),
    ]
}

pub fn edited(mut text: String, edits: &[Edit]) -> String {
    for edit in edits {
        let mut at = 0;
        if let Edit::Insert(index, _) | Edit::Cut(index) | Edit::Delete(index) = edit {
            at = index.index(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
        }
        match edit {
            Edit::Insert(_, piece) => text.insert_str(at, piece),
            Edit::Cut(_) => text.truncate(at),
            Edit::Delete(_) if at < text.len() => drop(text.remove(at)),
            Edit::Delete(_) => {}
            Edit::Before(piece) => text.insert_str(0, piece),
            Edit::After(piece) => text.push_str(piece),
        }
    }
    text
}
