//! What the one has stored the other reads, and the bytes are the same.

use std::sync::Arc;

use kleidi_harness::{ApiServer, Etcd, Stage};
use kleidi_sim::apiserver::{Apiserver, Options};
use kleidi_sim::config::GroupResource;
use kleidi_sim::edges::Edges;
use kleidi_sim::envelope::Read;
use kleidi_sim::secret::Secret;
use tonic::metadata::MetadataMap;

use crate::script::STEADY;
use crate::world::{Sockets, configuration};
use crate::{PROVIDER, VERSIONS};

/// A real apiserver and a model on one etcd; both have the plugin.
struct Pair {
    apiserver: ApiServer,
    model: Apiserver,
    runtime: tokio::runtime::Runtime,
    etcd: Etcd,
    _sockets: Sockets,
    _stage: Stage,
}

impl Pair {
    fn start(version: &str) -> Option<Self> {
        let stage = Stage::new(&format!("values {version}"));
        let etcd = Etcd::start(&stage)?;
        let apiserver = ApiServer::new(&stage, "apiserver", version, &etcd)?;
        let sockets = Sockets::new(&stage);
        let _plugin = sockets.start("kms.sock", STEADY);
        let text = configuration("secrets", &[(PROVIDER, &sockets.path("kms.sock"))], "3s");
        let apiserver = apiserver.encrypt_by(&text).start();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (minor, _) = version.rsplit_once('.').unwrap();
        let config = Arc::new(move || Ok(text.clone().into_bytes()));
        let options = Options { version: minor.parse().unwrap(), config, reload: false };
        let model = runtime.block_on(async {
            let model = Apiserver::start(Edges::os(None), options).await.unwrap();
            model.until_ready().await;
            model
        });
        Some(Self { apiserver, model, runtime, etcd, _sockets: sockets, _stage: stage })
    }

    /// What the model reads at a key of etcd.
    fn read(&self, key: &str) -> Vec<u8> {
        let value = self.etcd.get(key).expect("it is in etcd");
        let read = self.try_read(key, &value).expect("the model reads it");
        assert!(!read.stale, "both write under the same key_id");
        read.plaintext
    }

    fn try_read(&self, key: &str, value: &[u8]) -> Result<Read, String> {
        let (resource, none) = (secrets(), MetadataMap::new());
        self.runtime.block_on(self.model.read(&resource, value, key.as_bytes(), &none))
    }

    fn write(&self, key: &str, object: &[u8]) {
        let value = self.model.write(&secrets(), object, key.as_bytes()).unwrap();
        self.etcd.put(key, &value);
    }
}

fn key(name: &str) -> String {
    format!("/registry/secrets/default/{name}")
}

fn secrets() -> GroupResource {
    GroupResource::parse("secrets")
}

#[test]
fn values_are_read_both_ways() {
    for version in VERSIONS {
        let Some(pair) = Pair::start(version) else { return };
        for number in 0..10 {
            let name = format!("real-{number}");
            pair.apiserver.create_secret(&name, &"x".repeat(number * 1000));
            let object = pair.read(&key(&name));
            let secret = Secret::decode(&object).expect("a Secret");
            assert_eq!(secret.data["value"], "x".repeat(number * 1000).into_bytes());
            assert_eq!(secret.encode(), object, "{version}: the model writes the same bytes");

            let of_the_model = format!("model-{number}");
            let twin = Secret { name: of_the_model.clone(), ..secret };
            pair.write(&key(&of_the_model), &twin.encode());
            let read = pair.apiserver.read_secret(&of_the_model);
            assert_eq!(read, Ok("x".repeat(number * 1000)), "{version}");
            // It takes it for its own: an update changes it, and the model reads that.
            pair.apiserver.rewrite_secret(&of_the_model).expect("it can be updated");
            assert_eq!(Secret::decode(&pair.read(&key(&of_the_model))).unwrap().name, of_the_model);
        }
        let listed = pair.apiserver.list_secrets().expect("all can be listed");
        assert_eq!(listed.iter().filter(|name| name.starts_with("model-")).count(), 10);
        // Bound to its place by both.
        let value = pair.etcd.get(&key("model-1")).unwrap();
        pair.etcd.put(&key("moved"), &value);
        assert_eq!(pair.apiserver.read_secret("moved").unwrap_err().status, 500, "{version}");
        let error = pair.try_read(&key("moved"), &value).unwrap_err();
        assert_eq!(error, "cipher: message authentication failed");
    }
}
