//! Seeds, to be looked for where none may be seen: in what is stored, logged and said.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// Bytes of the parts by which a seed is recognised. Whatever shows twice as many bytes of one in a row shows a
/// part of it whole.
const PART: usize = 8;

/// Bits of the filter before the set: few parts that are in no seed pass it.
const FILTER_BITS: usize = 1 << 22;

/// All that were sent to be wrapped.
#[derive(Default)]
pub struct Seeds(Mutex<Parts>);

#[derive(Default)]
struct Parts {
    filter: Vec<u64>,
    parts: BTreeSet<u64>,
}

impl Parts {
    fn remember(&mut self, part: u64) {
        self.filter.resize(FILTER_BITS / 64, 0);
        let bit = place(part);
        self.filter[bit / 64] |= 1 << (bit % 64);
        self.parts.insert(part);
    }

    fn hold(&self, part: u64) -> bool {
        let bit = place(part);
        let passes = self.filter.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1);
        passes && self.parts.contains(&part)
    }
}

/// Where a part is in the filter: parts are random, so some of their bits will do.
fn place(part: u64) -> usize {
    usize::try_from(part % (FILTER_BITS as u64)).unwrap_or(0)
}

impl Seeds {
    /// One is about to be sent: before whoever gets it can show it.
    pub fn remember(&self, seed: &[u8]) {
        let mut parts = self.0.lock();
        for part in seed.chunks_exact(PART) {
            parts.remember(number(part));
        }
    }

    /// Whether one can be seen in these bytes.
    pub fn show_in_bytes(&self, bytes: &[u8]) -> bool {
        let parts = self.0.lock();
        bytes.windows(PART).any(|window| parts.hold(number(window)))
    }

    /// Whether one can be seen in a text: as it is, in hex, in base64 or as numbers.
    pub fn show_in(&self, text: &str) -> bool {
        self.show_in_bytes(text.as_bytes())
            || runs(text, 4 * PART, |byte| byte.is_ascii_hexdigit()).any(|run| self.in_hex(run))
            || runs(text, 2 * PART * 4 / 3, |byte| {
                byte.is_ascii_alphanumeric() || b"+/".contains(&byte)
            })
            .any(|run| self.in_base64(run))
            || runs(text, 4 * PART, |byte| byte.is_ascii_digit() || b", ".contains(&byte))
                .any(|run| self.in_numbers(run))
    }

    fn in_hex(&self, run: &str) -> bool {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let digits: Vec<u8> = run.as_bytes().iter().filter_map(digit).collect();
        (0..2).any(|from| {
            let pairs = digits.get(from..).unwrap_or_default().chunks_exact(2);
            self.show_in_bytes(&pairs.map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>())
        })
    }

    fn in_base64(&self, run: &str) -> bool {
        (0..4).any(|from| {
            let quads = run.get(from..).unwrap_or_default();
            let whole = &quads[..quads.len() / 4 * 4];
            STANDARD_NO_PAD.decode(whole).is_ok_and(|bytes| self.show_in_bytes(&bytes))
        })
    }

    fn in_numbers(&self, run: &str) -> bool {
        let numbers = run.split(',').map(|number| number.trim().parse().unwrap_or(0));
        self.show_in_bytes(&numbers.collect::<Vec<u8>>())
    }
}

fn number(part: &[u8]) -> u64 {
    part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The longest parts of a text that consist of such bytes alone, if they are long enough to show something.
fn runs(text: &str, least: usize, of: impl Fn(u8) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c: char| !u8::try_from(c).is_ok_and(&of)).filter(move |run| run.len() >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_seen_however_it_is_written() {
        let seeds = Seeds::default();
        let seed: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 37 % 251).unwrap());
        seeds.remember(&seed);
        let hex = seed.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let base64 = STANDARD_NO_PAD.encode(seed);
        let later = STANDARD_NO_PAD.encode([b"x", &seed[..]].concat());
        for text in [
            format!("cannot wrap {hex}"),
            format!("cannot wrap {}", hex.to_uppercase()),
            format!("cannot wrap a{hex}"),
            format!("cannot wrap {}", &hex[5..40]),
            format!("cannot wrap {base64}="),
            format!("cannot wrap {later}="),
            format!("cannot wrap {seed:?}"),
        ] {
            assert!(seeds.show_in(&text), "{text}");
        }
        assert!(seeds.show_in_bytes(&[&[1; 9], &seed[3..20]].concat()));
        for text in ["cannot wrap: denied", "69156414b31011bea3741935dbf6da04-01", &hex[..15]] {
            assert!(!seeds.show_in(text), "{text}");
        }
    }
}
