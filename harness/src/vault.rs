//! A real OpenBao or HashiCorp Vault, and the few calls that tests make of it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::http::Http;
use crate::port::free_port;
use crate::process::Process;
use crate::softhsm::random_key;
use crate::{Authority, CertificateFiles, Stage, components, eventually};

/// How long an answer may take: an election of a cluster is shorter.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a plugin needs to be allowed, and no more.
const POLICY: &str = include_str!("../../configuration/vault/policy.hcl");

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// OpenBao.
    OpenBao,
    /// HashiCorp Vault, the community's edition.
    Vault,
}

/// One test per product of each function, in the modules `openbao` and `vault`.
#[macro_export]
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod openbao {
            $(#[test] fn $test() { super::$test($crate::Product::OpenBao); })+
        }
        mod vault {
            $(#[test] fn $test() { super::$test($crate::Product::Vault); })+
        }
    };
}

/// A running server.
#[derive(Debug)]
pub struct VaultServer {
    stage: Stage,
    name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    http: Http,
    /// Of a server with TLS: the authority, and the files of its certificate.
    authority: Option<(PathBuf, CertificateFiles)>,
    root_token: String,
    /// Where there is one, and the server does not unseal itself.
    unseal_key: Option<String>,
    /// The process.
    pub process: Process,
}

/// What a client logs in with.
#[derive(Debug, Clone)]
pub struct AppRole {
    /// The role's id.
    pub role_id: String,
    /// The secret that goes with it.
    pub secret_id: String,
}

impl Product {
    /// Both.
    pub const ALL: [Self; 2] = [Self::OpenBao, Self::Vault];

    /// Its program; `None` if there is none.
    #[must_use]
    pub fn binary(self) -> Option<PathBuf> {
        match self {
            Self::OpenBao => components::openbao(),
            Self::Vault => components::vault(),
        }
    }
}

impl VaultServer {
    /// Starts a development server: plain HTTP, everything in memory, unsealed, with nothing in it
    /// yet. `None` if there is no such product.
    #[must_use]
    pub fn start(stage: &Stage, name: &str, product: Product) -> Option<Self> {
        let binary = product.binary()?;
        let port = free_port();
        let root_token = format!("root-{}", hex(&random_key()[..8]));
        let arguments = vec![
            "server".to_owned(),
            "-dev".to_owned(),
            "-dev-no-store-token".to_owned(),
            format!("-dev-root-token-id={root_token}"),
            format!("-dev-listen-address=127.0.0.1:{port}"),
        ];
        let http = Http::new(port, None, Some(root_token.clone()));
        let mut server = Self::spawn(stage, name, binary, arguments, http, None);
        server.root_token = root_token;
        server.wait_ready();
        Some(server)
    }

    /// Starts a server with TLS from a configuration of its own: everything in memory, initialised
    /// and unsealed, with nothing in it yet. OpenBao unseals itself by a static key, Vault by its one
    /// share. `None` if there is no such product.
    ///
    /// # Panics
    ///
    /// If its files cannot be written.
    #[must_use]
    pub fn tls(stage: &Stage, name: &str, product: Product, authority: &Authority) -> Option<Self> {
        Self::alone(stage, name, product, authority, &json!({"inmem": {}}))
    }

    /// The same, but it keeps its data on the disk: started again it has all that it had, and has to be
    /// unsealed if it is a Vault.
    ///
    /// # Panics
    ///
    /// If its files cannot be written.
    #[must_use]
    pub fn lasting(
        stage: &Stage,
        name: &str,
        product: Product,
        authority: &Authority,
    ) -> Option<Self> {
        let storage = json!({"raft": {
            "path": stage.make_dir(&format!("{name}-data")),
            "node_id": name,
            "performance_multiplier": "1",
        }});
        Self::alone(stage, name, product, authority, &storage)
    }

    fn alone(
        stage: &Stage,
        name: &str,
        product: Product,
        authority: &Authority,
        storage: &Value,
    ) -> Option<Self> {
        let port = free_port();
        let mut configuration = json!({"storage": storage, "disable_mlock": true});
        if product == Product::OpenBao {
            configuration["seal"] = static_seal(&stage.path(&format!("{name}.seal")));
            // Vault allows it without being told.
            configuration["unsafe_allow_api_audit_creation"] = true.into();
        }
        let mut server = Self::configured(stage, name, product, authority, port, configuration)?;
        server.initialise();
        server.wait_ready();
        Some(server)
    }

    /// Starts a server with TLS on that port; `configuration` is all but the listener. Neither
    /// initialised nor ready.
    pub(crate) fn configured(
        stage: &Stage,
        name: &str,
        product: Product,
        authority: &Authority,
        port: u16,
        mut configuration: Value,
    ) -> Option<Self> {
        let cluster_port = free_port();
        configuration["api_addr"] = format!("https://127.0.0.1:{port}").into();
        configuration["cluster_addr"] = format!("https://127.0.0.1:{cluster_port}").into();
        Self::written(stage, name, product, authority, port, |files| {
            configuration["listener"] = json!([{"tcp": {
                "address": format!("127.0.0.1:{port}"),
                "cluster_address": format!("127.0.0.1:{cluster_port}"),
                "tls_cert_file": files.certificate,
                "tls_key_file": files.key,
            }}]);
            ("json", format!("{configuration:#}"))
        })
    }

    /// The same with a whole configuration, and how the name of its file ends.
    pub(crate) fn written(
        stage: &Stage,
        name: &str,
        product: Product,
        authority: &Authority,
        port: u16,
        write: impl FnOnce(&CertificateFiles) -> (&'static str, String),
    ) -> Option<Self> {
        let binary = product.binary()?;
        let files = authority.issue(name);
        let (ending, text) = write(&files);
        let path = stage.path(&format!("{name}.{ending}"));
        fs::write(&path, text).expect("a configuration can be written");
        let arguments = vec!["server".to_owned(), format!("-config={}", path.display())];
        let http = Http::new(port, Some(authority.der()), None);
        let authority = Some((authority.file(), files));
        Some(Self::spawn(stage, name, binary, arguments, http, authority))
    }

    fn spawn(
        stage: &Stage,
        name: &str,
        binary: PathBuf,
        arguments: Vec<String>,
        http: Http,
        authority: Option<(PathBuf, CertificateFiles)>,
    ) -> Self {
        let process = run(stage, name, &binary, &arguments);
        Self {
            stage: stage.clone(),
            name: name.to_owned(),
            binary,
            arguments,
            http,
            authority,
            root_token: String::new(),
            unseal_key: None,
            process,
        }
    }

    /// Starts it again on the same port after it has ended. What was in memory is gone, which leaves
    /// a development server empty and one with TLS uninitialised; a node of a cluster has its data.
    pub fn start_again(&mut self) {
        self.process = run(&self.stage, &self.name, &self.binary, &self.arguments);
        self.wait_answers();
    }

    /// Initialises it and remembers its root token; unseals it, if it does not do that itself.
    pub(crate) fn initialise(&mut self) {
        self.wait_answers();
        let body = match self.seal_status()["recovery_seal"].as_bool() {
            Some(true) => json!({"recovery_shares": 1, "recovery_threshold": 1}),
            _ => json!({"secret_shares": 1, "secret_threshold": 1}),
        };
        let answer = self.must("PUT", "sys/init", &body);
        self.adopt_root_token(text(&answer["root_token"]));
        if body["secret_shares"].is_number() {
            self.unseal_key = answer["keys"][0].as_str().map(str::to_owned);
            self.unseal();
        }
    }

    /// Speaks with that root token from now on.
    pub(crate) fn adopt_root_token(&mut self, token: String) {
        self.http = self.http.with_token(&token);
        self.root_token = token;
    }

    /// Waits until it answers anything at all.
    fn wait_answers(&mut self) {
        let http = &self.http;
        self.process.wait_ready(|| http.send("GET", "/v1/sys/health", None).map(|_| ()));
    }

    /// Waits until it is unsealed and leads, or knows who does.
    pub(crate) fn wait_ready(&mut self) {
        let http = &self.http;
        self.process.wait_ready(|| {
            let health = http.send("GET", "/v1/sys/health", None)?;
            match health.status {
                200 => Ok(()),
                // Unsealed, but not the leader.
                429 => match http.send("GET", "/v1/sys/leader", None)? {
                    answer if answer.body.contains("\"leader_address\":\"https:") => Ok(()),
                    answer => Err(answer.body),
                },
                status => Err(format!("{status} {}", health.body)),
            }
        });
    }

    /// Where it listens, as a URL.
    #[must_use]
    pub fn address(&self) -> &str {
        self.http.base()
    }

    /// Its port.
    ///
    /// # Panics
    ///
    /// Never: it has one.
    #[must_use]
    pub fn port(&self) -> u16 {
        let (_, port) = self.address().rsplit_once(':').expect("a port");
        port.parse().expect("a port")
    }

    /// The certificate authority of its listener, in PEM; `None` without TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_ref().map(|(authority, _)| authority.as_path())
    }

    /// Has it present a certificate of another authority from now on, to new connections.
    ///
    /// # Panics
    ///
    /// If it is a server without TLS, or does not do so.
    pub fn present(&mut self, authority: &Authority) {
        let (_, files) = self.authority.clone().expect("a server with TLS");
        let issued = authority.issue(&self.name);
        for (from, to) in [(issued.certificate, &files.certificate), (issued.key, &files.key)] {
            fs::copy(from, to).expect("its files can be written");
        }
        self.authority = Some((authority.file(), files));
        let port = self.http.port();
        self.process.signal(Signal::SIGHUP);
        eventually("the new certificate", || {
            // A connection that is kept would not show it.
            self.http = Http::new(port, Some(authority.der()), Some(self.root_token.clone()));
            self.http.send("GET", "/v1/sys/health", None).map(|_| ())
        });
    }

    /// A token that may do everything.
    #[must_use]
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// Calls `/v1/<path>` with the root token: the status, and what it says.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    #[must_use]
    pub fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.call_as(&self.root_token, method, path, body)
    }

    /// The same with another token.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    #[must_use]
    pub fn call_as(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        match self.try_call(PATIENCE, token, method, path, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{}: {method} {path}: {error}", self.name),
        }
    }

    /// The same; `Err` if there is no answer within that time.
    pub fn try_call(
        &self,
        patience: Duration,
        token: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<(u16, Value), String> {
        let body = (!body.is_null()).then_some(body);
        let http = self.http.with_token(token);
        let answer = http.send_within(patience, method, &format!("/v1/{path}"), body)?;
        Ok((answer.status, serde_json::from_str(&answer.body).unwrap_or_default()))
    }

    /// Lets a command speak to this server as an administrator, by the server's own program.
    ///
    /// # Panics
    ///
    /// If the program has no directory.
    pub fn administrator<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let programs = self.binary.parent().expect("a directory").display();
        let path = std::env::var("PATH").unwrap_or_default();
        for prefix in ["BAO", "VAULT"] {
            command
                .env(format!("{prefix}_ADDR"), self.address())
                .env(format!("{prefix}_TOKEN"), &self.root_token);
            if let Some((authority, _)) = &self.authority {
                command.env(format!("{prefix}_CACERT"), authority);
            }
        }
        command.env("PATH", format!("{programs}:{path}"))
    }

    /// Prepares it for a plugin: the transit key `kms`, of which no other can be made by a slip, and
    /// the AppRole `kms` that may use it.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    #[must_use]
    pub fn provision(&self) -> AppRole {
        self.must("POST", "sys/mounts/transit", &json!({"type": "transit"}));
        self.must("POST", "transit/keys/kms", &json!({"type": "aes256-gcm96"}));
        self.must("POST", "transit/config/keys", &json!({"disable_upsert": true}));
        self.must("POST", "sys/policies/acl/kms-plugin", &json!({"policy": POLICY}));
        self.must("POST", "sys/auth/approle", &json!({"type": "approle"}));
        let role = json!({
            "token_policies": "kms-plugin",
            "token_ttl": "20m",
            "token_max_ttl": "24h",
        });
        self.must("POST", "auth/approle/role/kms", &role);
        let role_id = self.must("GET", "auth/approle/role/kms/role-id", &Value::Null);
        let secret_id = self.must("POST", "auth/approle/role/kms/secret-id", &json!({}));
        AppRole {
            role_id: text(&role_id["data"]["role_id"]),
            secret_id: text(&secret_id["data"]["secret_id"]),
        }
    }

    /// Another secret_id of the role `kms`, wrapped: the wrapping token, which is good for a minute.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    #[must_use]
    pub fn wrapped_secret_id(&self) -> String {
        self.wrapped("auth/approle/role/kms/secret-id", &json!({}))
    }

    /// A wrapping token for something else.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    #[must_use]
    pub fn wrap(&self, data: &Value) -> String {
        self.wrapped("sys/wrapping/wrap", data)
    }

    fn wrapped(&self, path: &str, body: &Value) -> String {
        let http = self.http.with_header("x-vault-wrap-ttl", "60s");
        let answer = http.send("POST", &format!("/v1/{path}"), Some(body)).expect("an answer");
        let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        assert!(answer.status == 200, "{}: {path}: {said}", self.name);
        text(&said["wrap_info"]["token"])
    }

    /// Logs in: the token.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    #[must_use]
    pub fn log_in(&self, role: &AppRole) -> String {
        let body = json!({"role_id": role.role_id, "secret_id": role.secret_id});
        text(&self.must("POST", "auth/approle/login", &body)["auth"]["client_token"])
    }

    /// Adds a version to the key `kms`.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    pub fn rotate(&self) {
        self.must("POST", "transit/keys/kms/rotate", &json!({}));
    }

    /// Seals it: from now on it answers 503.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    pub fn seal(&self) {
        self.must("PUT", "sys/seal", &json!({}));
    }

    /// Unseals it; a server that unseals itself does so when it is started again.
    ///
    /// # Panics
    ///
    /// If the server refuses, or has no key to unseal it with.
    pub fn unseal(&self) {
        let key = self.unseal_key.clone().or_else(|| {
            let log = self.process.log();
            let line = log.lines().rev().find_map(|line| line.strip_prefix("Unseal Key: "));
            line.map(|key| key.trim().to_owned())
        });
        let key = key.expect("a key to unseal it with");
        self.must("PUT", "sys/unseal", &json!({"key": key}));
        eventually("it to be unsealed", || match self.seal_status() {
            status if status["sealed"] == false => Ok(()),
            status => Err(status.to_string()),
        });
    }

    fn seal_status(&self) -> Value {
        self.call("GET", "sys/seal-status", &Value::Null).1
    }

    /// A call with the root token that has to succeed; what it says.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[allow(clippy::must_use_candidate, reason = "many call it for what it does")]
    pub fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        match self.call(method, path, body) {
            (200..300, answer) => answer,
            (status, answer) => panic!("{}: {method} {path}: {status} {answer}", self.name),
        }
    }
}

/// A seal that opens by a key in a file.
pub(crate) fn static_seal(path: &Path) -> Value {
    // Not reused: every server or cluster has its own key, nodes of a cluster share the file.
    if !path.exists() {
        fs::write(path, random_key()).expect("a key can be written");
    }
    json!({"static": {
        "current_key_id": "tests",
        "current_key": format!("file://{}", path.display()),
    }})
}

fn run(stage: &Stage, name: &str, binary: &Path, arguments: &[String]) -> Process {
    let mut command = Command::new(binary);
    // What VAULT_ or BAO_ variables of this machine say is about other servers.
    command.args(arguments).env_clear().env("HOME", stage.make_dir(name));
    Process::spawn(stage, name, &mut command)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
