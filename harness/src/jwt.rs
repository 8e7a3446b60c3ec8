//! A party that signs JSON web tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};
use serde_json::{Value, json};

/// An issuer with an Ed25519 key.
#[derive(Debug)]
pub struct JwtIssuer(KeyPair);

impl JwtIssuer {
    /// A new one.
    ///
    /// # Panics
    ///
    /// If there is no key to be had.
    #[must_use]
    pub fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ED25519).expect("a key"))
    }

    /// What its tokens are checked with, in PEM.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.0.public_key_pem()
    }

    /// A token with these claims, good from a minute ago for `seconds` from now on.
    ///
    /// # Panics
    ///
    /// If the claims are no object.
    #[must_use]
    pub fn sign(&self, claims: Value, seconds: i64) -> String {
        self.sign_as("EdDSA", claims, seconds)
    }

    /// The same with whatever algorithm in its header: its signature is good for `EdDSA` alone.
    ///
    /// # Panics
    ///
    /// If the claims are no object.
    #[must_use]
    pub fn sign_as(&self, algorithm: &str, mut claims: Value, seconds: i64) -> String {
        let now = seconds_since_1970();
        claims["iat"] = (now - 60).into();
        claims["nbf"] = (now - 60).into();
        claims["exp"] = (now + seconds).into();
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed =
            format!("{}.{}", part(&json!({"alg": algorithm, "typ": "JWT"})), part(&claims));
        let signature = self.0.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Default for JwtIssuer {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::disallowed_methods, reason = "a token's claims are about the wall clock")]
fn seconds_since_1970() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.map_or(0, |since| since.as_secs())).unwrap_or(i64::MAX)
}
