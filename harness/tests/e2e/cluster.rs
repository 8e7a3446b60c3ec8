//! A KMS, a plugin, an etcd and a kube-apiserver together.

use std::time::Duration;

use kleidi_harness::{ApiServer, Etcd, Plugin, Stage, Stored, within};

use crate::keeper::{Keeper, Kms};

/// Name of the KMS provider in the `EncryptionConfiguration`.
pub const PROVIDER: &str = "kleidi-test";

/// What every Secret's value begins with; must be found nowhere but in the API.
pub const CANARY: &str = "canary-e5b1f0a7-of-the-secrets";

/// kube-apiserver reuses a good health result for 20 s and a bad one for 3 s, and after a failure
/// asks the plugin every 10 s (`kmsv2PluginHealthzPositiveInterval` and others,
/// k8s.io/apiserver pkg/server/options/encryptionconfig/config.go).
pub const HEALTH_PATIENCE: Duration = Duration::from_secs(60);

/// The parts, in the order in which they are to be dropped.
pub struct Cluster {
    pub apiserver: ApiServer,
    pub plugin: Plugin,
    pub etcd: Etcd,
    pub keeper: Keeper,
    pub stage: Stage,
}

impl Cluster {
    /// Starts all of it; `None` if a component is missing.
    pub fn start(test: &str, version: &str, kms: Kms) -> Option<Self> {
        let stage = Stage::new(&format!("{test} {version} {kms:?}"));
        let keeper = kms.start(&stage)?;
        let etcd = Etcd::start(&stage)?;
        let apiserver = ApiServer::new(&stage, "apiserver", version, &etcd)?;
        let plugin = keeper.plugin(&stage, "plugin").start();
        let apiserver = apiserver.encrypt_with(PROVIDER, &plugin.socket()).start();
        Some(Self { apiserver, plugin, etcd, keeper, stage })
    }

    /// Creates Secrets `<prefix>-0` and so on.
    pub fn create_secrets(&self, prefix: &str, count: usize) -> Vec<String> {
        (0..count)
            .map(|n| {
                let name = format!("{prefix}-{n}");
                self.apiserver.create_secret(&name, &value_of(&name));
                name
            })
            .collect()
    }

    /// Reads every Secret and compares.
    pub fn read_all(&self, names: &[String]) {
        for name in names {
            assert_eq!(self.apiserver.read_secret(name), Ok(value_of(name)), "{name}");
        }
    }

    /// The raw value of a Secret, taken apart.
    pub fn stored(&self, name: &str) -> Stored {
        let value = self.etcd.get(&secret_key(name)).expect("the Secret is in etcd");
        Stored::parse(&value).unwrap()
    }

    /// Restarts the apiserver: it has to have every seed unwrapped again.
    pub fn restart_apiserver(&mut self) {
        self.apiserver.stop();
        self.apiserver.start_again();
        self.wait_healthy();
    }

    /// Waits until the apiserver finds its KMS provider healthy.
    pub fn wait_healthy(&self) {
        within(HEALTH_PATIENCE, "the KMS provider to be healthy", || self.apiserver.kms_health());
    }

    /// Waits until it finds it unhealthy; gives what it says.
    pub fn wait_unhealthy(&self) -> String {
        within(HEALTH_PATIENCE, "the KMS provider to be unhealthy", || {
            match self.apiserver.kms_health() {
                Ok(()) => Err("it is healthy".to_owned()),
                Err(what) => Ok(what),
            }
        })
    }

    /// Ends the test: nothing secret may be in any log, in the command line of any process, or in
    /// etcd's files.
    pub fn finish(mut self) {
        let seed = b"seed-0123456789-canary-abcdefghi";
        let wrapped = self.plugin.client().encrypt(seed).expect("a seed can be wrapped");
        assert_eq!(self.plugin.client().decrypt(&wrapped).as_deref().ok(), Some(&seed[..]));
        // An error's text must not repeat what was in the request.
        let mut bad = wrapped;
        let middle = bad.ciphertext.len() / 2;
        bad.ciphertext[middle] ^= 1;
        self.plugin.client().decrypt(&bad).expect_err("it was tampered with");

        let credentials = self.keeper.secrets();
        let mut secrets = vec![CANARY.as_bytes(), seed];
        secrets.extend(credentials.iter().map(Vec::as_slice));
        for pid in [self.plugin.process.pid(), self.apiserver.process.pid()] {
            for what in ["cmdline", "environ"] {
                let text = std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
                for secret in &secrets {
                    let found = text.windows(secret.len()).any(|window| window == *secret);
                    assert!(!found, "a secret is in the {what} of a process");
                }
            }
        }
        assert_eq!(self.plugin.process.terminate(), 0, "SIGTERM ends the plugin with 0");
        self.apiserver.stop();
        self.stage.assert_absent(&secrets, |file| !self.keeper.owns(file));
    }
}

/// The value of the Secret with that name.
pub fn value_of(name: &str) -> String {
    format!("{CANARY}-{name}")
}

/// Its key in etcd.
pub fn secret_key(name: &str) -> String {
    format!("/registry/secrets/default/{name}")
}
