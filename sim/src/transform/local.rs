//! The providers whose keys are in the configuration (upstream `encrypt/aes/aes.go`,
//! `encrypt/secretbox/secretbox.go`).

mod aescbc;
mod secretbox;

use zeroize::Zeroizing;

use crate::config::Keys;
use crate::envelope::Read;
use crate::object;

/// How a provider encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cipher {
    AesGcm,
    AesCbc,
    Secretbox,
}

/// A provider with its keys: the first writes, all read.
pub(super) struct Keyed {
    cipher: Cipher,
    prefix: &'static str,
    keys: Vec<(String, Zeroizing<Vec<u8>>)>,
}

/// Why there is less than has to be there.
const TOO_SHORT: &str = "the stored data was shorter than the required size";

impl Keyed {
    pub(super) fn new(cipher: Cipher, keys: &Keys) -> Self {
        let prefix = match cipher {
            Cipher::AesGcm => "k8s:enc:aesgcm:v1:",
            Cipher::AesCbc => "k8s:enc:aescbc:v1:",
            Cipher::Secretbox => "k8s:enc:secretbox:v1:",
        };
        Self { cipher, prefix, keys: keys.clone() }
    }

    /// Encrypts with the first key and the first of the random bytes.
    pub(super) fn seal(
        &self,
        random: &[u8],
        plaintext: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, String> {
        let (name, key) = self.keys.first().ok_or("the provider has no keys")?;
        let sealed = match self.cipher {
            Cipher::AesGcm => object::seal_with_key(key, random, plaintext, aad),
            Cipher::AesCbc => aescbc::seal(key, random, plaintext),
            Cipher::Secretbox => secretbox::seal(key, random, plaintext),
        };
        let sealed = sealed.ok_or("the key or the random bytes have a wrong length")?;
        Ok([self.prefix.as_bytes(), name.as_bytes(), b":", &sealed].concat())
    }

    /// Decrypts; nothing for a value of another provider, all faults if no key opens it.
    pub(super) fn open(&self, value: &[u8], aad: &[u8]) -> Option<Result<Read, Vec<String>>> {
        let value = value.strip_prefix(self.prefix.as_bytes())?;
        let mut faults = Vec::new();
        for (place, (name, key)) in self.keys.iter().enumerate() {
            let data = value.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
            let Some(data) = data else { continue };
            let opened = match self.cipher {
                Cipher::AesGcm => object::open_with_key(key, data, aad).map_err(|e| e.to_string()),
                Cipher::AesCbc => aescbc::open(key, data).map_err(str::to_owned),
                Cipher::Secretbox => secretbox::open(key, data).map_err(str::to_owned),
            };
            match opened {
                Ok(plaintext) => return Some(Ok(Read { plaintext, stale: place != 0 })),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() {
            let kind = if self.cipher == Cipher::Secretbox { "Secretbox" } else { "AES" };
            faults.push(format!("no matching key was found for the provided {kind} transformer"));
        }
        Some(Err(faults))
    }
}
