//! Bytes that must not be printed: seeds and PINs.

use zeroize::Zeroizing;

pub mod file;

/// Bytes in clear that are wiped when dropped.
///
/// There is deliberately no `Debug`, `Display`, `Clone` or serialisation; reading them is spelled
/// [`Secret::expose`], so that every place that does can be found.
///
/// ```compile_fail
/// # use kleidi::secret::Secret;
/// println!("{:?}", Secret::from(vec![1, 2, 3]));
/// ```
#[derive(PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The bytes in clear.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes in clear; the caller wipes them.
    #[must_use]
    pub fn into_exposed(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.0)
    }

    /// The bytes in clear, wiped when the last reference is dropped.
    #[must_use]
    pub fn into_bytes(self) -> bytes::Bytes {
        struct Owner(Secret);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                self.0.expose()
            }
        }
        bytes::Bytes::from_owner(Owner(self))
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}
