//! The plugin as a process, and a client for the socket of any plugin.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use kleidi_proto::client::{Connection, connect};
use kleidi_proto::kms::key_management_service_client::KeyManagementServiceClient;
use kleidi_proto::kms::{
    DecryptRequest, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::process::Process;
use crate::{AppRole, Shim, SoftHsm, Stage, VaultServer, built, within, write_private};

/// A plugin that is yet to be started: its configuration file is written, and can be changed.
#[derive(Debug, Clone)]
pub struct PluginConfig {
    name: String,
    binary: PathBuf,
    directory: PathBuf,
    environment: BTreeMap<String, PathBuf>,
    log_level: Option<String>,
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

    /// Replaces text in the configuration file.
    ///
    /// # Panics
    ///
    /// If the text is not there, or if the file cannot be written.
    #[must_use]
    pub fn replace(self, from: &str, to: &str) -> Self {
        let content = fs::read_to_string(self.file()).expect("the configuration can be read");
        assert!(content.contains(from), "{from:?} is not in {content}");
        fs::write(self.file(), content.replace(from, to)).expect("it can be written");
        self
    }

    /// Puts the scripted module in front of the token's.
    #[must_use]
    pub fn with_shim(mut self, shim: &Shim, token: &SoftHsm) -> Self {
        let module = token.module().to_owned();
        self.environment.insert("PKCS11_SHIM_MODULE".to_owned(), module.clone());
        self.environment.insert("PKCS11_SHIM_SCRIPT".to_owned(), shim.script());
        let (from, to) = (module.display().to_string(), shim.module().display().to_string());
        self.replace(&from, &to)
    }

    /// Logs at this level instead of everything; `None` leaves it to the configuration file.
    #[must_use]
    pub fn log_level(mut self, level: Option<&str>) -> Self {
        self.log_level = level.map(ToOwned::to_owned);
        self
    }

    /// Sets a variable of the plugin's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<PathBuf>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
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
        command.args(args).env_remove("NOTIFY_SOCKET");
        // What VAULT_ or BAO_ variables of this machine say is about other servers.
        for (name, _) in std::env::vars_os() {
            if ["VAULT_", "BAO_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.envs(&self.environment);
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
        let mut command = self.command(&["serve", "--config"]);
        command.arg(file);
        if let Some(level) = &self.log_level {
            command.args(["--log-level", level]);
        }
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
        let keys = format!(
            "pkcs11:\n  module: {}\n  tokenLabel: {}\n  keyLabel: kek\n  pinFile: {}\n",
            token.module().display(),
            token.token_label(),
            token.pin_file().display(),
        );
        let environment = [("SOFTHSM2_CONF".to_owned(), token.configuration())].into();
        Self::configure(stage, name, environment, &keys)
    }

    /// The configuration of a plugin for the transit key `kms` of a server that is provisioned.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn on_transit(
        stage: &Stage,
        name: &str,
        server: &VaultServer,
        role: &AppRole,
    ) -> PluginConfig {
        Self::on_nodes(stage, name, &[server], role)
    }

    /// The same for a cluster; the nodes are asked in this order.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn on_nodes(
        stage: &Stage,
        name: &str,
        nodes: &[&VaultServer],
        role: &AppRole,
    ) -> PluginConfig {
        let file = |what: &str, content: &str| {
            let path = stage.path(&format!("{name}-{what}"));
            write_private(&path, content);
            path.display().to_string()
        };
        let addresses: Vec<_> = nodes.iter().map(|node| format!("'{}'", node.address())).collect();
        let mut keys = format!(
            "transit:\n  addresses: [{}]\n  key: kms\n  auth:\n    method: appRole\n    \
             roleIdFile: {}\n    secretIdFile: {}\n",
            addresses.join(", "),
            file("role-id", &role.role_id),
            file("secret-id", &role.secret_id),
        );
        if let Some(authority) = nodes.iter().find_map(|node| node.authority()) {
            let _ = writeln!(keys, "  caFile: {}", authority.display());
        }
        Self::configure(stage, name, BTreeMap::new(), &keys)
    }

    fn configure(
        stage: &Stage,
        name: &str,
        environment: BTreeMap<String, PathBuf>,
        keys: &str,
    ) -> PluginConfig {
        let config = PluginConfig {
            name: name.to_owned(),
            binary: built::plugin(),
            directory: stage.make_dir(&format!("{name}.d")),
            environment,
            // Everything that could be logged is looked through for secrets.
            log_level: Some("debug".to_owned()),
            stage: stage.clone(),
        };
        let text = format!(
            "apiVersion: kleidi.beezy.dev/v1\n\
             kind: PluginConfiguration\n\
             socket:\n  listen: {}\n\
             health:\n  period: 1s\n{keys}",
            config.socket().display(),
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
        let request = request(StatusRequest {});
        self.call(|mut client| async move { client.status(request).await })
    }

    /// Has a seed wrapped.
    pub fn encrypt(&mut self, plaintext: &[u8]) -> Result<EncryptResponse, tonic::Status> {
        let uid = self.next_uid();
        let request = request(EncryptRequest { plaintext: plaintext.to_vec(), uid });
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
        let request = request(DecryptRequest {
            ciphertext: ciphertext.to_vec(),
            uid: self.next_uid(),
            key_id: key_id.to_owned(),
            annotations: annotations.clone(),
        });
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
            let client = if let Some(client) = connection.take() {
                client
            } else {
                let stream = UnixStream::connect(socket).await.map_err(|e| lost(e.to_string()))?;
                connect(stream).await.map_err(|error| lost(error.to_string()))?
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

/// A request that states its deadline, as kube-apiserver does.
fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

/// Waits until a plugin's Status is ok.
///
/// # Panics
///
/// If it is not in that time.
#[must_use]
pub fn wait_healthy(plugin: &Plugin, patience: Duration) -> String {
    within(patience, "Status to be ok", || {
        plugin.client().status().map(|status| status.key_id).map_err(|error| error.to_string())
    })
}
