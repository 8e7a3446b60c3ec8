//! Limits of the protocol and of time that concern several modules, with their units and where they
//! come from; a module's own are in the module.

use std::time::Duration;

/// Longest `ciphertext` of an Encrypt answer in bytes; kube-apiserver refuses a longer one
/// (k8s.io/apiserver pkg/storage/value/encrypt/envelope/kmsv2/envelope.go, `encryptedDEKSourceMaxSize`).
pub const CIPHERTEXT_BYTES_MAX: usize = 1024;

/// Longest request message in bytes: a ciphertext, a key_id and 32 KiB of annotations are the most
/// that kube-apiserver can send; the rest is room for their encoding.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Longest `uid` that is logged, in bytes; kube-apiserver sends a UUID of 36.
pub const UID_BYTES_MAX: usize = 64;

/// Connections at a time. One kube-apiserver has one, or two for a while after a reload of its
/// configuration; more wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1024;

/// How long a connection may take to say its first byte.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls in flight per connection; more wait in the client.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// Calls in flight over all connections; more are refused at once.
pub const CALLS_MAX: usize = 4096;

/// How long answers may take to reach their clients after the last call has ended at shutdown.
pub const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest time for one call when the client states no deadline or a later one. Below
/// kube-apiserver's default timeout of 3 s, so that it hears our reason and not its own timeout.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(2500);

/// Longest time for one observation of the backend.
pub const OBSERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Wait after the first failed observation; doubles up to the configured period.
pub const OBSERVE_RETRY_MIN: Duration = Duration::from_millis(250);

/// Shortest time from a good observation to the next, however many calls ask for one.
pub const OBSERVE_GAP_MIN: Duration = Duration::from_millis(50);

/// Wait after a failed `accept`, for instance while file descriptors are used up.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
