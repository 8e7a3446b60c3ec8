//! An OpenBao in a container on the cluster's network: a development server, with everything in memory.

use std::time::Duration;

use crate::clock::within;
use crate::command;

/// The network that kind puts its nodes into.
const NETWORK: &str = "kind";

/// By this label a cluster's other containers are found and removed.
pub const LABEL: &str = "dev.beezy.kleidi.cluster";

/// The root token.
const TOKEN: &str = "root-of-the-scenario";

/// A running server.
#[derive(Debug, Clone)]
pub struct OpenBao {
    name: String,
}

impl OpenBao {
    /// Starts one for this cluster.
    pub fn start(cluster: &str, image: &str) -> Result<Self, String> {
        if command::run("docker", &["network", "inspect", NETWORK]).is_err() {
            command::run("docker", &["network", "create", NETWORK])?;
        }
        let name = format!("{cluster}-openbao");
        let label = format!("{LABEL}={cluster}");
        let token = format!("-dev-root-token-id={TOKEN}");
        command::run(
            "docker",
            &[
                "run",
                "--detach",
                "--name",
                &name,
                "--hostname",
                &name,
                "--label",
                &label,
                "--network",
                NETWORK,
                image,
                "server",
                "-dev",
                &token,
                "-dev-listen-address=0.0.0.0:8200",
                "-dev-no-store-token",
            ],
        )?;
        let server = Self { name };
        within(Duration::from_secs(60), "OpenBao", || server.bao("bao status").map(|_| ()))?;
        Ok(server)
    }

    /// A kleidi.yaml that names it, with the login by AppRole.
    #[must_use]
    pub fn configuration(&self) -> String {
        format!(
            "apiVersion: kleidi.beezy.dev/v1\nkind: PluginConfiguration\ntransit:\n  \
             addresses: ['http://{}:8200']\n  key: kms\n  auth:\n    method: appRole\n    \
             roleIdFile: /etc/kleidi/role-id\n    secretIdFile: /etc/kleidi/secret-id\n",
            self.name
        )
    }

    /// Makes key, policy and login with the script of `kleidi init --print-policy`; gives role_id and secret_id.
    pub fn provision(&self, script: &str) -> Result<(String, String), String> {
        self.feed("cat > /tmp/setup.sh && sh /tmp/setup.sh --make-key", script)?;
        let role = "auth/approle/role/kleidi-kms";
        let role_id = self.bao(&format!("bao read -field=role_id {role}/role-id"))?;
        let secret_id = self.bao(&format!("bao write -force -field=secret_id {role}/secret-id"))?;
        Ok((role_id, secret_id))
    }

    /// Another key, from a backup of transit's own.
    pub fn restore(&self, key: &str, backup: &str) -> Result<(), String> {
        self.feed(&format!("bao write transit/restore/{key} backup=-"), backup).map(|_| ())
    }

    /// A new version of the key.
    pub fn rotate(&self) -> Result<(), String> {
        self.bao("bao write -force transit/keys/kms/rotate").map(|_| ())
    }

    /// Makes everything under versions before this one unreadable, for ever.
    pub fn retire_before(&self, version: u32) -> Result<(), String> {
        self.bao(&format!(
            "bao write transit/keys/kms/config min_decryption_version={version} min_encryption_version={version} \
             && bao write transit/keys/kms/trim min_available_version={version}"
        ))
        .map(|_| ())
    }

    /// It answers nobody any more, and keeps the connections.
    pub fn hang(&self) -> Result<(), String> {
        command::run("docker", &["pause", &self.name]).map(|_| ())
    }

    /// It goes on.
    pub fn go_on(&self) -> Result<(), String> {
        command::run("docker", &["unpause", &self.name]).map(|_| ())
    }

    /// Runs a script where `bao` is root.
    fn bao(&self, script: &str) -> Result<String, String> {
        self.feed(script, "")
    }

    fn feed(&self, script: &str, input: &str) -> Result<String, String> {
        let token = format!("BAO_TOKEN={TOKEN}");
        let args = [
            "exec",
            "--interactive",
            "--env",
            "BAO_ADDR=http://127.0.0.1:8200",
            "--env",
            &token,
            &self.name,
            "sh",
            "-euc",
            script,
        ];
        let output = command::feed("docker", &args, input.as_bytes())?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }
}
