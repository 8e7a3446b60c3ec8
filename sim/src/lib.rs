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
//! None of these does I/O, asks the time or makes random bytes: all three are handed in. With the feature
//! `client` there are also
//!
//! ```text
//! apiserver  what drives them: an apiserver as its plugins see it
//! client     its gRPC client, with grpc-go's ways
//! edges      what it needs of the world: sockets, the time, random bytes
//! ```
//!
//! and with the feature `cli`, for the program `kleidi-sim`,
//!
//! ```text
//! cli        its arguments and what it says
//! store      Secrets in etcd: put, get, list, rewrite
//!   secret   the bytes of a Secret
//!   etcd     a client
//! ```
//!
//! and with the feature `world`
//!
//! ```text
//! world      whole clusters in memory, with the product in them
//! ```

#[cfg(feature = "client")]
pub mod apiserver;
pub mod cache;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
#[cfg(feature = "client")]
pub mod edges;
pub mod envelope;
#[cfg(feature = "cli")]
pub mod etcd;
pub mod go;
#[cfg(feature = "client")]
mod latest;
pub mod limits;
pub mod object;
pub mod probe;
pub mod reload;
pub mod secret;
#[cfg(feature = "cli")]
pub mod store;
pub mod time;
pub mod transform;
pub mod version;
#[cfg(feature = "world")]
pub mod world;
