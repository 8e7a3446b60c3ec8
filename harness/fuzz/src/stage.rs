//! The product's server, service and provider on a simulated KMS, over sockets in memory.

use std::sync::Arc;
use std::time::Duration;

use kleidi_proto::client::{Connection, connect};
use kleidi_proto::kms::key_management_service_client::KeyManagementServiceClient;
use kleidi_proto::kms::{DecryptRequest, EncryptResponse};
use kleidi_sim::edges::{Dial as _, Stream as Duplex};
use kleidi_sim::world::history::History;
use kleidi_sim::world::kms::Kms;
use kleidi_sim::world::kms::memory::Memory;
use kleidi_sim::world::net::Net;
use kleidi_sim::world::plugin::{Plugin, Start, address};
use kleidi_sim::world::random::Stream;

pub type Client = KeyManagementServiceClient<Connection>;

/// How often the plugin looks at its KMS.
pub const PERIOD: Duration = Duration::from_secs(10);

/// A plugin, and the KMS behind it.
pub struct Stage {
    pub kms: Arc<dyn Kms>,
    net: Net,
    plugin: Option<Plugin>,
    starts: u64,
}

impl Stage {
    pub fn new() -> Self {
        let kms: Arc<dyn Kms> = Memory::new(1, 1, History::begin());
        let mut stage = Self { kms, net: Net::default(), plugin: None, starts: 0 };
        stage.restart();
        stage
    }

    /// Kills the plugin, if one runs, and starts another.
    pub fn restart(&mut self) {
        self.plugin = None;
        let (number, random) = (self.starts, Stream::of(self.starts, "plugin"));
        self.starts += 1;
        let (net, kms) = (&self.net, &self.kms);
        let start = Start { net, kms, node: 0, period: PERIOD, random, mutant: None, number };
        self.plugin = Some(Plugin::start(start));
    }

    /// A connection on which nothing was said.
    pub async fn raw(&self) -> Box<dyn Duplex> {
        self.net.dial(&address(0)).await.unwrap()
    }

    pub async fn client(&self) -> Client {
        connect(self.raw().await).await.unwrap()
    }
}

/// Runs on a clock that jumps to whatever is due next.
pub fn run(job: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(job);
}

/// What kube-apiserver asks for, of what it was given.
pub fn request_for(answer: EncryptResponse) -> DecryptRequest {
    let EncryptResponse { ciphertext, key_id, annotations } = answer;
    DecryptRequest { ciphertext, uid: "uid".to_owned(), key_id, annotations }
}
