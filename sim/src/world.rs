//! Whole clusters in memory: apiservers of this model, the product's real server, service and provider, a
//! simulated KMS and etcd, on a clock that stands still but for the run. A plan says what happens; the same
//! plan gives the same history, bit for bit.
//!
//! ```text
//! plan ──► run ──► history ──► judge
//!           │
//!           ├─ client  ──► node    apiserver ──net──► plugin ──► kms
//!           └─ store   etcd, and the truth
//! generate: plans out of a seed      shrink: a smaller plan that fails alike
//! mutant: what the judge has to catch     explain: a run for those who were not there
//! ```

pub mod client;
pub mod explain;
pub mod generate;
pub mod history;
pub mod judge;
pub mod kms;
pub mod log;
pub mod mutant;
pub mod net;
pub mod node;
pub mod page;
pub mod panics;
pub mod plan;
pub mod plugin;
pub mod random;
pub mod run;
pub mod seeds;
pub mod shrink;
pub mod store;
pub mod words;
