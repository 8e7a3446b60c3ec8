//! Real parts for tests of KMS v2 plugins.
//!
//! Each part is a process of its own with a directory of its own, on a port that was free, ready when
//! it says so, killed when dropped or when the test is killed; its logs stay if the test fails. Everything blocks, so that a test
//! reads from top to bottom.
//!
//! ```no_run
//! use kleidi_harness::{ApiServer, Etcd, Plugin, SoftHsm, Stage};
//!
//! let stage = Stage::new("example");
//! let token = SoftHsm::with_key(&stage, "token", "kek", 1).unwrap();
//! let plugin = Plugin::new(&stage, "plugin", &token).start();
//! let etcd = Etcd::start(&stage).unwrap();
//! let apiserver = ApiServer::new(&stage, "apiserver", "1.37.2", &etcd).unwrap().encrypt_with("kms", &plugin.socket());
//! let apiserver = apiserver.start();
//! apiserver.create_secret("one", "hunter2");
//! assert!(etcd.get("/registry/secrets/default/one").unwrap().starts_with(b"k8s:enc:kms:v2:kms:"));
//! ```
//!
//! The plugin runs as a process, never as a library, so the harness serves for any plugin.
//!
//! **A test that could not run is not a pass**: where a component is missing, [`components`] says so
//! on standard error and returns nothing, and with `CI=true` it fails the test.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "without its parts a test cannot go on"
)]

mod apiserver;
mod balancer;
mod bao_cluster;
pub mod built;
mod certificates;
pub mod components;
mod container;
mod counting_proxy;
mod etcd;
mod guard;
mod http;
mod jwt;
mod load;
mod plugin;
mod poll;
mod port;
mod private;
mod process;
mod shim;
mod softhsm;
mod stage;
mod stored;
mod vault;

pub use apiserver::{ApiError, ApiServer, ApiServerConfig, encryption_configuration};
pub use balancer::Balancer;
pub use bao_cluster::BaoCluster;
pub use certificates::{Authority, CertificateFiles};
pub use counting_proxy::CountingProxy;
pub use etcd::Etcd;
pub use jwt::JwtIssuer;
pub use load::{Load, Made, Rpc, Summary};
pub use plugin::{Client, Plugin, PluginConfig, wait_healthy};
pub(crate) use poll::PATIENCE;
pub use poll::{eventually, within};
pub use port::free_port;
pub use private::write_private;
pub use process::Process;
pub use shim::{Call, Shim};
pub use softhsm::{SoftHsm, random_key};
pub use stage::Stage;
pub use stored::Stored;
pub use vault::{AppRole, Product, VaultServer};
