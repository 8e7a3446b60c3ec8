//! What hooks do to a KMS.

use kleidi_harness::{SoftHsm, VaultServer, random_key};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A KMS in whose hands the keys of a plugin are.
pub trait Kms {
    /// Makes a new key the current one.
    fn rotate(&mut self);
    /// Makes the material before the last rotation the current one again; false if it cannot.
    fn rotate_back(&mut self) -> bool;
    /// Goes away.
    fn down(&mut self);
    /// Comes back.
    fn up(&mut self);
    /// Forbids to decrypt, and nothing else, or allows it again.
    fn allow_decrypt(&mut self, allowed: bool);
}

/// A SoftHSM token; the key with the highest CKA_ID is the current one.
pub struct Token {
    token: SoftHsm,
    /// The keys with the CKA_IDs 1, 2 and so on.
    keys: Vec<[u8; 32]>,
}

impl Token {
    /// With this key, whose CKA_ID is 1.
    pub fn new(token: SoftHsm, key: [u8; 32]) -> Self {
        Self { token, keys: vec![key] }
    }

    fn add(&mut self, key: [u8; 32]) {
        self.keys.push(key);
        self.token.add_key("kek", u8::try_from(self.keys.len()).unwrap(), &key);
    }
}

impl Kms for Token {
    fn rotate(&mut self) {
        self.add(random_key());
    }

    fn rotate_back(&mut self) -> bool {
        self.add(self.keys[self.keys.len() - 2]);
        true
    }

    fn down(&mut self) {
        self.token.take_away();
    }

    fn up(&mut self) {
        self.token.bring_back();
    }

    fn allow_decrypt(&mut self, allowed: bool) {
        let current = format!("{:02x}", self.keys.len());
        self.token.p11(&["set", "kek", &current, &format!("decrypt={allowed}")]);
    }
}

/// The transit key `kms` of a server that was provisioned.
pub struct Transit {
    server: VaultServer,
    /// What the plugin may do.
    policy: String,
}

impl Transit {
    /// On this server.
    pub fn new(server: VaultServer) -> Self {
        let (_, policy) = server.call("GET", "sys/policies/acl/kms-plugin", &Value::Null);
        let policy = policy["data"]["policy"].as_str().expect("a policy").to_owned();
        Self { server, policy }
    }
}

impl Kms for Transit {
    fn rotate(&mut self) {
        self.server.rotate();
    }

    /// A version's material never comes back.
    fn rotate_back(&mut self) -> bool {
        false
    }

    /// It accepts connections, and answers nothing.
    fn down(&mut self) {
        self.server.process.hang();
    }

    fn up(&mut self) {
        self.server.process.signal(Signal::SIGCONT);
    }

    fn allow_decrypt(&mut self, allowed: bool) {
        let less = self.policy.replace("transit/decrypt/kms", "transit/decrypt/other");
        let policy = if allowed { &self.policy } else { &less };
        self.server.must("POST", "sys/policies/acl/kms-plugin", &json!({"policy": policy}));
    }
}
