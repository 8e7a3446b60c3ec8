//! A model of kube-apiserver as a KMS v2 plugin meets it.
//!
//! Independent of every plugin: it depends on the protocol alone. Each rule names where upstream has it, and
//! the vectors and traces in `vectors/` and in the tests are upstream's.
//!
//! ```text
//! config    which resources are encrypted by what; upstream's defaults and messages, by version
//! reload    the configuration changes while the apiserver runs
//! probe     is it healthy, and what is written with: Status and Encrypt, and nothing else
//! transform a resource's chain of providers, and those whose keys are in the configuration
//! envelope  objects to and from etcd's values; Decrypt, where a seed is not known
//!   object  the bytes in etcd
//!   cache   seeds that have been unwrapped
//!   limits  what is accepted of a plugin
//! ```
//!
//! Nothing here does I/O, asks the time or makes random bytes: all three are handed in.

pub mod cache;
pub mod config;
pub mod envelope;
pub mod go;
pub mod limits;
pub mod object;
pub mod probe;
pub mod reload;
pub mod time;
pub mod transform;
pub mod version;
