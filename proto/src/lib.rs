//! Bindings of the two protobuf interfaces that a KMS v2 plugin meets.
//!
//! * [`kms`]: the gRPC service between kube-apiserver and a plugin.
//! * [`encryption`]: the record that kube-apiserver stores in etcd.
//!
//! Both packages are called `v2` in protobuf, hence the two modules. The bindings in `gen/` are
//! generated from `kms/v2/api.proto` and `encryption/v2/api.proto` and checked in; the test
//! `regenerate` fails when they differ. Maps are `BTreeMap`s, so encoding is deterministic.
//!
//! One difference from Go's encoder: where a map entry's value is empty, prost leaves the value
//! field out (`22 05 0a 03 61 2e 62`), Go writes it (`22 07 0a 03 61 2e 62 12 00`). Both read
//! both.

#[cfg(feature = "client")]
pub mod client;

/// The plugin interface: `Status`, `Encrypt`, `Decrypt`.
///
/// Messages with a seed in clear print `<redacted>` in its place.
#[allow(clippy::pedantic, reason = "generated")]
pub mod kms {
    include!("gen/kms.rs");

    impl std::fmt::Debug for EncryptRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("EncryptRequest")
                .field("plaintext", &"<redacted>")
                .field("uid", &self.uid)
                .finish()
        }
    }

    impl std::fmt::Debug for DecryptResponse {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("DecryptResponse").field("plaintext", &"<redacted>").finish()
        }
    }
}

/// The stored record: [`encryption::EncryptedObject`].
#[allow(clippy::pedantic, reason = "generated")]
pub mod encryption {
    include!("gen/encryption.rs");

    /// What kube-apiserver puts before the provider's name, a `:` and the [`EncryptedObject`].
    pub const ETCD_PREFIX: &str = "k8s:enc:kms:v2:";
}

#[cfg(test)]
mod tests {
    use super::kms::{DecryptResponse, EncryptRequest};

    #[test]
    fn messages_with_a_seed_do_not_print_it() {
        let seed = b"seed-in-clear".to_vec();
        let request = EncryptRequest { plaintext: seed.clone(), uid: "u".into() };
        let response = DecryptResponse { plaintext: seed.into() };
        for printed in [format!("{request:?}"), format!("{response:?}")] {
            assert!(printed.contains("<redacted>") && !printed.contains("115, 101"), "{printed}");
        }
    }
}
