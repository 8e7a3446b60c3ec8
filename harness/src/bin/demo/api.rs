//! What stands between a Secret and etcd: a real kube-apiserver, or the model of it (`kleidi-sim`).

use std::path::PathBuf;
use std::process::Command;

use kleidi_harness::{
    ApiServer, Etcd, Plugin, Process, Stage, built, components, encryption_configuration, within,
};

use crate::{PROVIDER, run, step};

pub enum Api {
    Real(Box<ApiServer>),
    Model(Model),
}

/// The program, and what it is started with.
pub struct Model {
    config: PathBuf,
    etcd: String,
}

impl Api {
    /// Starts it, with the plugin for Secrets.
    pub fn start(which: &str, stage: &Stage, etcd: &Etcd, plugin: &Plugin) -> Self {
        match which {
            "real" => Self::Real(Box::new(real(stage, etcd, plugin))),
            "model" => Self::Model(Model::start(stage, etcd, plugin)),
            _ => panic!("there is no apiserver {which:?}; there are real and model"),
        }
    }

    /// Makes a Secret with one value, `data.value`.
    pub fn create(&self, name: &str, value: &str) {
        match self {
            Self::Real(apiserver) => {
                apiserver.create_secret(name, value);
                println!("  created through the API");
            }
            Self::Model(model) => {
                model.told(&["put", &format!("default/{name}"), &format!("value={value}")]);
            }
        }
    }

    /// Its value.
    pub fn read(&self, name: &str) -> String {
        match self {
            Self::Real(apiserver) => apiserver.read_secret(name).expect("the Secret can be read"),
            Self::Model(model) => {
                let said = model.told(&["get", &format!("default/{name}")]);
                said.trim_end().trim_start_matches("value=").to_owned()
            }
        }
    }

    /// What it does now that the plugin names another key.
    pub fn move_to_the_new_key(&self) {
        match self {
            Self::Real(_) => println!(
                "  kube-apiserver asks for it once a minute, and writes under the new key from then on"
            ),
            Self::Model(model) => {
                model.told(&["list"]);
                model.told(&["rewrite"]);
                model.told(&["list"]);
            }
        }
    }

    /// Commands for the one who keeps it running.
    pub fn commands(&self, secret: &str) -> String {
        match self {
            Self::Real(apiserver) => {
                let api = apiserver.config();
                let (url, ca) = (api.url(), api.certificate());
                let (bearer, ca) = (api.bearer_token(), ca.display());
                format!(
                    "  curl --cacert {ca} -H 'Authorization: Bearer {bearer}' {url}/api/v1/namespaces/default/secrets/{secret}
  kubectl --server {url} --certificate-authority {ca} --token {bearer} get secret {secret} -o yaml"
                )
            }
            Self::Model(model) => {
                let (program, config) = (built::sim(), model.config.display());
                let program = format!(
                    "{} apiserver --config {config} --etcd {}",
                    program.display(),
                    model.etcd
                );
                format!(
                    "  {program} get default/{secret}
  {program} --calls      # commands from standard input; `help` names them"
                )
            }
        }
    }

    /// The process, if there is one.
    pub fn into_process(self) -> Option<Process> {
        match self {
            Self::Real(apiserver) => Some(apiserver.process),
            Self::Model(_) => None,
        }
    }
}

fn real(stage: &Stage, etcd: &Etcd, plugin: &Plugin) -> ApiServer {
    let version = components::KUBE_APISERVERS[components::KUBE_APISERVERS.len() - 1];
    step(&format!("kube-apiserver {version}"));
    let apiserver = ApiServer::new(stage, "apiserver", version, etcd).expect("kube-apiserver");
    let apiserver = apiserver.encrypt_with(PROVIDER, &plugin.socket()).start();
    let patience = std::time::Duration::from_secs(60);
    within(patience, "the KMS provider to be healthy", || apiserver.kms_health());
    let url = apiserver.config().url();
    println!("  {url} with --encryption-provider-config; /healthz/kms-providers: ok");
    apiserver
}

impl Model {
    fn start(stage: &Stage, etcd: &Etcd, plugin: &Plugin) -> Self {
        step("The model of kube-apiserver: kleidi-sim apiserver");
        let model = Self { config: stage.path("encryption.yaml"), etcd: etcd.url() };
        let text = encryption_configuration(PROVIDER, &plugin.socket());
        std::fs::write(&model.config, text).expect("the configuration can be written");
        model.told(&["health"]);
        model
    }

    /// Runs a command: what it says.
    fn told(&self, command: &[&str]) -> String {
        let quoted = command
            .iter()
            .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() });
        let words: Vec<_> = quoted.collect();
        println!("  $ kleidi-sim apiserver --config encryption.yaml {}", words.join(" "));
        let mut program = Command::new(built::sim());
        program.args(["apiserver", "--etcd", &self.etcd, "--config"]).arg(&self.config);
        let said = run(program.args(command));
        said.lines().for_each(|line| println!("      {line}"));
        said
    }
}
