//! The gRPC client of one `kms` entry, with the options that upstream gives grpc-go
//! (`kmsv2/grpc_service.go`; spec 2).
//!
//! ```text
//! channel    one connection at a time: made when a call needs it, made again with a backoff
//!   backoff  how long to wait before the next attempt
//! wire       the bytes: when the server has spoken, and what `:authority` says
//!   authority  puts in what Rust's HTTP libraries refuse
//! fault      errors as grpc-go prints them
//! ```
//!
//! Not modelled: the order of headers, `grpc-accept-encoding`, and grpc-go's PINGs for its bandwidth estimate.

mod authority;
mod backoff;
mod channel;
mod fault;
mod wire;

pub use backoff::backoff;
pub use channel::{Channel, Target};
pub use fault::text;
