//! Tokens of AppRole: how long they live.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::world::random::Stream;

/// How many times its life a token may live if it is renewed.
const RENEWED: u32 = 9;

/// A token.
#[derive(Clone)]
struct Token {
    made: Instant,
    expires: Instant,
}

/// All tokens.
#[derive(Clone)]
pub(super) struct Tokens {
    life: Duration,
    tokens: BTreeMap<String, Token>,
}

impl Tokens {
    /// None, and how long one lives.
    pub(super) fn new(random: &Stream) -> Self {
        let life = Duration::from_secs([60, 300, 1200, 3600][random.index(4)]);
        Self { life, tokens: BTreeMap::new() }
    }

    /// A new one, and for how many seconds it is.
    pub(super) fn issue(&mut self, random: &Stream) -> (String, u64) {
        let now = Instant::now();
        self.tokens.retain(|_, token| token.expires > now);
        let mut bytes = [0; 12];
        random.bytes(&mut bytes);
        let name = bytes.iter().fold("s.".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        self.tokens.insert(name.clone(), Token { made: now, expires: now + self.life });
        (name, self.life.as_secs())
    }

    /// Renews one that lives, for so many seconds: less and less at its end.
    pub(super) fn renew(&mut self, name: &str) -> Option<u64> {
        let now = Instant::now();
        let token = self.tokens.get_mut(name).filter(|token| token.expires > now)?;
        token.expires = (now + self.life).min(token.made + self.life * RENEWED);
        Some((token.expires - now).as_secs())
    }

    /// Since when one that lives is there.
    pub(super) fn made(&self, name: &str) -> Option<Instant> {
        self.tokens.get(name).filter(|token| token.expires > Instant::now()).map(|token| token.made)
    }

    /// All are revoked.
    pub(super) fn revoke(&mut self) {
        self.tokens.clear();
    }
}
