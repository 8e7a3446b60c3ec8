//! Where the demo's key is: on a token of SoftHSM's, or in the transit engine of OpenBao or Vault.

use std::process::Command;

use kleidi_harness::{
    AppRole, Plugin, PluginConfig, Process, Product, SoftHsm, Stage, VaultServer, built,
};

use crate::{run, step};

const ROTATE: &str = "bao write -f transit/keys/kms/rotate";

/// Whatever holds the key.
pub enum Keys {
    Token(SoftHsm),
    Transit(Box<Transit>),
}

/// An OpenBao or a Vault, and its command-line client.
pub struct Transit {
    product: Product,
    server: VaultServer,
}

impl Keys {
    /// Sets it up with a key in it, and configures a plugin for that key.
    pub fn prepare(backend: &str, stage: &Stage) -> (Self, PluginConfig) {
        let product = match backend {
            "softhsm" => return on_token(stage),
            "openbao" => Product::OpenBao,
            "vault" => Product::Vault,
            _ => panic!("there is no backend {backend:?}; there are softhsm, openbao and vault"),
        };
        let (transit, config) = Transit::prepare(product, stage);
        (Self::Transit(Box::new(transit)), config)
    }

    /// Makes another key, or another version of it, which is the one to wrap with from then on.
    pub fn rotate(&self, config: &PluginConfig) {
        match self {
            Self::Token(_) => {
                println!("  $ kleidi init --cka-id 02");
                run(config.command(&["init", "--cka-id", "02", "-c"]).arg(config.file()));
            }
            Self::Transit(transit) => drop(transit.told(ROTATE)),
        }
    }

    /// Commands for the one who keeps it running.
    pub fn commands(&self, config: &PluginConfig) -> String {
        let (kleidi, config) = (built::plugin(), config.file());
        let (kleidi, config) = (kleidi.display(), config.display());
        match self {
            Self::Token(token) => {
                let conf = token.configuration();
                let conf = conf.display();
                format!(
                    "  SOFTHSM2_CONF={conf} {kleidi} check --live -c {config}
  SOFTHSM2_CONF={conf} {kleidi} init --cka-id 03 -c {config}      # another key: rotation"
                )
            }
            Self::Transit(transit) => {
                let variables = transit.variables().map(|(name, value)| format!("{name}={value}"));
                format!(
                    "  {kleidi} check --live -c {config}
  export {}
  {client} read transit/keys/kms
  {client} write -f transit/keys/kms/rotate      # another version: rotation",
                    variables.join(" "),
                    client = transit.binary().display(),
                )
            }
        }
    }

    /// The process that holds it, if there is one.
    pub fn into_process(self) -> Option<Process> {
        match self {
            Self::Token(_) => None,
            Self::Transit(transit) => Some(transit.server.process),
        }
    }
}

fn on_token(stage: &Stage) -> (Keys, PluginConfig) {
    step("A token in SoftHSM and a key on it: kleidi init");
    let token = SoftHsm::empty(stage, "softhsm").expect("SoftHSM");
    let config = Plugin::new(stage, "plugin", &token).log_level(None);
    for line in run(config.command(&["init", "-c"]).arg(config.file())).lines() {
        println!("  {line}");
    }
    (Keys::Token(token), config)
}

impl Transit {
    fn prepare(product: Product, stage: &Stage) -> (Self, PluginConfig) {
        step(&format!("{product:?}, and a key in its transit engine, as kleidi says"));
        let server = VaultServer::start(stage, "server", product).expect("the server");
        println!("  a development server on {}: all in memory", server.address());
        let transit = Self { product, server };
        // The script puts the real ones into the files that the configuration names.
        let nobody = AppRole { role_id: String::new(), secret_id: String::new() };
        let config = Plugin::on_transit(stage, "plugin", &transit.server, &nobody).log_level(None);
        println!(
            "  $ kleidi init --print-policy > setup.sh; sh setup.sh --make-key; sh setup.sh --node"
        );
        let script = run(config.command(&["init", "--print-policy", "-c"]).arg(config.file()));
        for line in script.lines().filter(|line| line.contains("bao ") && !line.contains('#')) {
            println!("      {}", line.trim());
        }
        for argument in ["--make-key", "--node"] {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", &transit.in_its_words(&script), "sh", argument]);
            run(transit.server.administrator(&mut shell));
        }
        (transit, config)
    }

    /// A script for either product, as the script itself says.
    fn in_its_words(&self, script: &str) -> String {
        match self.product {
            Product::OpenBao => script.to_owned(),
            Product::Vault => format!("bao() {{ vault \"$@\"; }}\n{script}"),
        }
    }

    /// Runs a command with this product's client: what it says.
    fn told(&self, command: &str) -> String {
        println!("  $ {command}");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &self.in_its_words(command)]);
        run(self.server.administrator(&mut shell)).trim().to_owned()
    }

    fn binary(&self) -> std::path::PathBuf {
        self.product.binary().expect("the server runs")
    }

    /// Where its client finds it, and may do everything.
    fn variables(&self) -> [(&'static str, &str); 2] {
        let (address, token) = (self.server.address(), self.server.root_token());
        match self.product {
            Product::OpenBao => [("BAO_ADDR", address), ("BAO_TOKEN", token)],
            Product::Vault => [("VAULT_ADDR", address), ("VAULT_TOKEN", token)],
        }
    }
}
