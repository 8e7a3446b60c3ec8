//! What keeps the key: a token of SoftHSM, or a Vault or an OpenBao. What the scenarios do to it.

use std::path::Path;

use kleidi_harness::{
    AppRole, Authority, Plugin, PluginConfig, Product, SoftHsm, Stage, VaultServer,
};

/// Which KMS.
#[derive(Debug, Clone, Copy)]
pub enum Kms {
    /// SoftHSM.
    SoftHsm,
    /// The transit engine of that server.
    Transit(Product),
}

/// A KMS with a key in it.
pub enum Keeper {
    /// A token.
    Token(SoftHsm),
    /// A server that keeps its data when it is restarted, and who may use its key.
    Server { product: Product, server: Box<VaultServer>, role: AppRole },
}

impl Kms {
    /// Starts it and makes the key; `None` if a component is missing.
    pub fn start(self, stage: &Stage) -> Option<Keeper> {
        match self {
            Self::SoftHsm => Some(Keeper::Token(SoftHsm::with_key(stage, "token", "kek", 1)?)),
            Self::Transit(product) => {
                let authority = Authority::new(stage, "authority");
                let server = VaultServer::lasting(stage, "server", product, &authority)?;
                let role = server.provision();
                Some(Keeper::Server { product, server: Box::new(server), role })
            }
        }
    }
}

impl Keeper {
    /// A plugin for it.
    pub fn plugin(&self, stage: &Stage, name: &str) -> PluginConfig {
        match self {
            Self::Token(token) => Plugin::new(stage, name, token),
            Self::Server { server, role, .. } => Plugin::on_transit(stage, name, server, role),
        }
    }

    /// A plugin on another node: with its own copy of the token, or on the same server.
    pub fn plugin_of_another_node(&self, stage: &Stage) -> PluginConfig {
        let name = "plugin-of-another-node";
        match self {
            Self::Token(token) => {
                Plugin::new(stage, name, &token.copy(stage, "token-of-another-node"))
            }
            Self::Server { .. } => self.plugin(stage, name),
        }
    }

    /// Makes a second key, or a second version of the key; its key_id, where it is told.
    pub fn rotate(&self, plugin: &Plugin) -> Option<String> {
        if let Self::Server { server, .. } = self {
            server.rotate();
            return None;
        }
        let output = plugin.config().run(&["init", "--cka-id", "02"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        Some(said.lines().find_map(|line| line.strip_prefix("key_id")).unwrap().trim().to_owned())
    }

    /// It cannot be used from now on.
    pub fn take_away(&mut self) {
        match self {
            Self::Token(token) => token.take_away(),
            Self::Server { server, .. } => {
                server.process.kill();
            }
        }
    }

    /// It can be used again.
    pub fn bring_back(&mut self) {
        match self {
            Self::Token(token) => token.bring_back(),
            Self::Server { product, server, .. } => {
                server.start_again();
                // OpenBao does that by itself.
                if *product == Product::Vault {
                    server.unseal();
                }
            }
        }
    }

    /// What the plugin names when it is away: where to look.
    pub fn whereabouts(&self) -> &str {
        match self {
            Self::Token(_) => "SOFTHSM2_CONF",
            Self::Server { server, .. } => server.address(),
        }
    }

    /// What must not be found in any log.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Token(_) => vec![SoftHsm::PIN.into(), SoftHsm::SO_PIN.into()],
            Self::Server { server, role, .. } => {
                vec![role.secret_id.clone().into(), server.root_token().into()]
            }
        }
    }

    /// Whether a file is one that holds them, or the KMS's own affair.
    pub fn owns(&self, file: &Path) -> bool {
        match self {
            Self::Token(_) => file.ends_with("pin"),
            Self::Server { .. } => file.iter().any(|part| {
                let part = part.to_string_lossy();
                part.starts_with("server") || part.ends_with("-secret-id")
            }),
        }
    }
}
