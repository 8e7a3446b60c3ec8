//! What holds for any bytes: a function for each way on which bytes come in that nobody vouches for.
//!
//! A function panics where it does not hold, and says nothing otherwise. `fuzz_targets` have a fuzzer look for
//! such bytes; `replay.rs` gives those that were kept, in `corpus` and `regressions`, to the same functions.

#![allow(clippy::unwrap_used, reason = "a panic is what a fuzzer looks for")]

mod annotations;
mod authority;
mod configurations;
mod decrypt;
mod envelopes;
mod http2;
mod key_ids;
mod objects;
mod sequence;
mod stage;
mod uris;
mod vault;

pub use annotations::annotation_validation;
pub use authority::authority_filter;
pub use configurations::{config_yaml, encryption_config_yaml};
pub use decrypt::decrypt_request;
pub use envelopes::envelope_parse;
pub use http2::http2_bytes;
pub use key_ids::key_id;
pub use objects::encrypted_object;
pub use sequence::request_sequence;
pub use uris::pkcs11_uri;
pub use vault::vault_response;

/// A name, which is that of the folder in `corpus`, and what holds.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 12] = [
    ("annotation_validation", annotation_validation),
    ("authority_filter", authority_filter),
    ("config_yaml", config_yaml),
    ("decrypt_request", decrypt_request),
    ("encrypted_object", encrypted_object),
    ("encryption_config_yaml", encryption_config_yaml),
    ("envelope_parse", envelope_parse),
    ("http2_bytes", http2_bytes),
    ("key_id", key_id),
    ("pkcs11_uri", pkcs11_uri),
    ("request_sequence", request_sequence),
    ("vault_response", vault_response),
];
