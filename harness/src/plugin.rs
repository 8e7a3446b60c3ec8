//! The plugin as a process, and a client for the socket of any plugin.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use kleidi_proto::client::{Connection, connect};
use kleidi_proto::kms::key_management_service_client::KeyManagementServiceClient;
use kleidi_proto::kms::{
    DecryptRequest, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::process::Process;
use crate::{SoftHsm, Stage, within};

/// A plugin that is yet to be started: its configuration file is written, and can be changed.
#[derive(Debug, Clone)]
pub struct PluginConfig {
    name: String,
    binary: PathBuf,
    directory: PathBuf,
    softhsm_conf: PathBuf,
    log_level: String,
    stage: Stage,
}

impl PluginConfig {
    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("kms.sock")
    }

    /// The configuration file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.join("kleidi.yaml")
    }

    /// Adds text to the end of the configuration file.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn append(self, text: &str) -> Self {
        let content = fs::read_to_string(self.file()).expect("the configuration can be read");
        fs::write(self.file(), content + text).expect("the configuration can be written");
        self
    }

    /// Uses another binary than the plugin's.
    #[must_use]
    pub fn binary(mut self, binary: PathBuf) -> Self {
        self.binary = binary;
        self
    }

    /// A command of the binary, with the environment that it needs.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).env("SOFTHSM2_CONF", &self.softhsm_conf);
        command.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS");
        command
    }

    /// Runs a command with this configuration to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.env("KLEIDI_CONFIG", self.file());
        command.output().expect("the plugin's binary can be run")
    }

    /// Starts the plugin and waits until it answers Status, whatever it answers.
    #[must_use]
    pub fn start(self) -> Plugin {
        let process = self.spawn(&self.name);
        let mut plugin = Plugin { config: self, process };
        plugin.wait_answers();
        plugin
    }

    /// Starts the process; does not wait for anything.
    #[must_use]
    pub fn spawn(&self, name: &str) -> Process {
        let file = self.file();
        let args = ["serve", "--log-level", &self.log_level, "--config"];
        let mut command = self.command(&args);
        command.arg(file);
        Process::spawn(&self.stage, name, &mut command)
    }
}

/// A running plugin.
#[derive(Debug)]
pub struct Plugin {
    config: PluginConfig,
    /// The process.
    pub process: Process,
}

impl Plugin {
    /// The configuration of a plugin for the keys with the label `kek` on a token.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    #[allow(clippy::new_ret_no_self, reason = "a plugin exists only when it has been started")]
    pub fn new(stage: &Stage, name: &str, token: &SoftHsm) -> PluginConfig {
        let config = PluginConfig {
            name: name.to_owned(),
            binary: binary().to_owned(),
            directory: stage.make_dir(&format!("{name}.d")),
            softhsm_conf: token.configuration(),
            // Everything that could be logged is looked through for secrets.
            log_level: "debug".to_owned(),
            stage: stage.clone(),
        };
        let text = format!(
            "apiVersion: kleidi.beezy.dev/v1\n\
             kind: PluginConfiguration\n\
             socket:\n  listen: {}\n\
             health:\n  period: 1s\n\
             pkcs11:\n  module: {}\n  tokenLabel: {}\n  keyLabel: kek\n  pinFile: {}\n",
            config.socket().display(),
            token.module().display(),
            token.token_label(),
            token.pin_file().display(),
        );
        fs::write(config.file(), text).expect("the configuration can be written");
        config
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.config.socket()
    }

    /// How it was started.
    #[must_use]
    pub fn config(&self) -> &PluginConfig {
        &self.config
    }

    /// A new connection.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.socket())
    }

    /// The key_id that Status gives, once it gives one.
    #[must_use]
    pub fn key_id(&self) -> String {
        crate::eventually("Status to be ok", || {
            self.client().status().map(|status| status.key_id).map_err(|error| error.to_string())
        })
    }

    /// Starts it again after it has ended; waits until it answers.
    pub fn start_again(&mut self) {
        self.process = self.config.spawn(&self.config.name);
        self.wait_answers();
    }

    fn wait_answers(&mut self) {
        let socket = self.socket();
        self.process.wait_ready(|| match Client::new(&socket).status() {
            Err(error) if error.code() == tonic::Code::Unknown => Err(error.to_string()),
            _ => Ok(()),
        });
    }
}

/// The plugin's binary: `KLEIDI_BIN`, or built from this checkout once per test process.
///
/// # Panics
///
/// If it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("KLEIDI_BIN") {
        Some(binary) => binary.into(),
        None => built("bin", "kleidi", ""),
    })
}

/// A broken twin of the plugin, built from this checkout: an example of the package `kleidi`.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn mutant(name: &str) -> PathBuf {
    built("example", name, "examples")
}

/// Builds a target of the package `kleidi` as this test was built, and gives its path.
fn built(kind: &str, name: &str, directory: &str) -> PathBuf {
    // …/target/<profile>/deps/<this test>
    let this = std::env::current_exe().expect("a test knows its own path");
    let profile = this.parent().and_then(Path::parent).expect("tests are in target/<profile>/deps");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    cargo.args(["build", "--quiet", "--locked", "--package", "kleidi", &format!("--{kind}"), name]);
    if profile.file_name().is_some_and(|profile| profile == "release") {
        cargo.arg("--release");
    }
    let target = profile.parent().expect("tests are in target/<profile>/deps");
    let status = cargo.env("CARGO_TARGET_DIR", target).status().expect("cargo can be run");
    assert!(status.success(), "cannot build the {kind} {name}");
    profile.join(directory).join(name)
}

/// One connection to a plugin's socket. Each call connects first if the connection is lost.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    socket: PathBuf,
    connection: Option<KeyManagementServiceClient<Connection>>,
    uid: u64,
}

/// Longest time for a call: that of kube-apiserver.
const TIMEOUT: Duration = Duration::from_secs(3);

impl Client {
    /// A client for a socket; connects with its first call.
    ///
    /// # Panics
    ///
    /// If there is no runtime to be had.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the client");
        Self { runtime, socket: socket.to_owned(), connection: None, uid: 0 }
    }

    /// Asks Status.
    pub fn status(&mut self) -> Result<StatusResponse, tonic::Status> {
        self.call(|mut client| async move { client.status(StatusRequest {}).await })
    }

    /// Has a seed wrapped.
    pub fn encrypt(&mut self, plaintext: &[u8]) -> Result<EncryptResponse, tonic::Status> {
        let request = EncryptRequest { plaintext: plaintext.to_vec(), uid: self.next_uid() };
        self.call(|mut client| async move { client.encrypt(request).await })
    }

    /// Has a seed unwrapped.
    pub fn decrypt(&mut self, wrapped: &EncryptResponse) -> Result<Vec<u8>, tonic::Status> {
        self.decrypt_parts(&wrapped.ciphertext, &wrapped.key_id, &wrapped.annotations)
    }

    /// Has a seed unwrapped, whoever wrapped it.
    pub fn decrypt_parts(
        &mut self,
        ciphertext: &[u8],
        key_id: &str,
        annotations: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<u8>, tonic::Status> {
        let request = DecryptRequest {
            ciphertext: ciphertext.to_vec(),
            uid: self.next_uid(),
            key_id: key_id.to_owned(),
            annotations: annotations.clone(),
        };
        self.call(|mut client| async move { client.decrypt(request).await })
            .map(|answer| answer.plaintext.to_vec())
    }

    fn next_uid(&mut self) -> String {
        self.uid += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.uid)
    }

    /// Makes a call. A connection that fails gives `Unknown`, which no plugin should answer, and the
    /// next call connects anew.
    fn call<T, F>(
        &mut self,
        call: impl FnOnce(KeyManagementServiceClient<Connection>) -> F,
    ) -> Result<T, tonic::Status>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let lost = |error: String| tonic::Status::unknown(error);
        let (socket, connection) = (&self.socket, &mut self.connection);
        let answer = async {
            let client = match connection.take() {
                Some(client) => client,
                None => {
                    let stream = UnixStream::connect(socket).await.map_err(|e| lost(e.to_string()))?;
                    connect(stream).await.map_err(|error| lost(error.to_string()))?
                }
            };
            let answer = call(client.clone()).await;
            match &answer {
                // Only what has not come from the plugin has a source.
                Err(status) if std::error::Error::source(status).is_some() => {
                    return Err(lost(status.to_string()));
                }
                _ => *connection = Some(client),
            }
            answer.map(tonic::Response::into_inner)
        };
        let late = || tonic::Status::deadline_exceeded("the client's 3 s are over");
        self.runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, answer).await })
            .unwrap_or_else(|_| Err(late()))
    }
}

/// Waits until a plugin's Status is ok.
///
/// # Panics
///
/// If it is not in that time.
pub fn wait_healthy(plugin: &Plugin, patience: Duration) -> String {
    within(patience, "Status to be ok", || {
        plugin.client().status().map(|status| status.key_id).map_err(|error| error.to_string())
    })
}
