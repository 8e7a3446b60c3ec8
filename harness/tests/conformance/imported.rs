//! A transit key whose versions are imported, so that material can come back; wrapped with `openssl`, as the
//! manuals of OpenBao and Vault do it.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kleidi_harness::{Stage, VaultServer, components, random_key};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::kms::Kms;

/// The key `kms` of a server that was provisioned, made anew.
pub struct Imported {
    stage: Stage,
    server: VaultServer,
    openssl: PathBuf,
    /// The material of the versions 1, 2 and so on.
    keys: Vec<[u8; 32]>,
}

impl Imported {
    /// Puts an imported key in the place of the server's own; `None` without `openssl`.
    pub fn replace(stage: &Stage, server: VaultServer) -> Option<Self> {
        let openssl = components::openssl()?;
        let mut imported = Self { stage: stage.clone(), server, openssl, keys: Vec::new() };
        imported.server.must("POST", "transit/keys/kms/config", &json!({"deletion_allowed": true}));
        imported.server.must("DELETE", "transit/keys/kms", &Value::Null);
        imported.add(random_key());
        Some(imported)
    }

    /// Imports a version.
    fn add(&mut self, key: [u8; 32]) {
        let (ciphertext, hash) = (self.wrap(&key), "SHA256");
        if self.keys.is_empty() {
            let body =
                json!({"ciphertext": ciphertext, "hash_function": hash, "type": "aes256-gcm96"});
            self.server.must("POST", "transit/keys/kms/import", &body);
        } else {
            let body = json!({"ciphertext": ciphertext, "hash_function": hash});
            self.server.must("POST", "transit/keys/kms/import_version", &body);
        }
        self.keys.push(key);
    }

    /// A passing key for the server's public key, then `key` for the passing key.
    fn wrap(&self, key: &[u8; 32]) -> String {
        let path = |name: &str| self.stage.path(name).display().to_string();
        let public = self.server.must("GET", "transit/wrapping_key", &Value::Null);
        let public = public["data"]["public_key"].as_str().expect("a public key");
        std::fs::write(path("wrapping.pem"), public).expect("a file");
        let passing = random_key();
        let oaep = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"];
        let mut command = vec!["pkeyutl", "-encrypt", "-pubin", "-inkey"];
        let pem = path("wrapping.pem");
        command.push(&pem);
        command.extend(oaep.iter().flat_map(|option| ["-pkeyopt", option]));
        let first = self.openssl(&command, &passing);
        let hex = passing.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let second =
            self.openssl(&["enc", "-id-aes256-wrap-pad", "-K", &hex, "-iv", "A65959A6"], key);
        STANDARD.encode([first, second].concat())
    }

    fn openssl(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let (from, to) = (self.stage.path("plain"), self.stage.path("wrapped"));
        std::fs::write(&from, input).expect("a file");
        let argument = |path: &Path| path.display().to_string();
        let output = Command::new(&self.openssl)
            .args(args)
            .args(["-in", &argument(&from), "-out", &argument(&to)])
            .output()
            .expect("openssl can be run");
        assert!(output.status.success(), "{args:?}: {output:?}");
        std::fs::read(to).expect("what it wrote")
    }
}

impl Kms for Imported {
    fn rotate(&mut self) {
        self.add(random_key());
    }

    fn rotate_back(&mut self) -> bool {
        self.add(self.keys[self.keys.len() - 2]);
        true
    }

    fn down(&mut self) {
        self.server.process.hang();
    }

    fn up(&mut self) {
        self.server.process.signal(Signal::SIGCONT);
    }

    fn allow_decrypt(&mut self, _: bool) {}
}
