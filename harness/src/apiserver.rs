//! A real kube-apiserver on a real etcd, and the few calls that tests make of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::Http;
use crate::port::free_port;
use crate::process::Process;
use crate::{Etcd, PATIENCE, Stage, components, within};

/// The bearer token of the tests' administrator.
const TOKEN: &str = "admin-of-the-tests";

/// A kube-apiserver that is yet to be started.
#[derive(Debug, Clone)]
pub struct ApiServerConfig {
    stage: Stage,
    name: String,
    binary: PathBuf,
    etcd: String,
    directory: PathBuf,
    port: u16,
    http: Http,
    reloads: bool,
    patience: Duration,
}

/// An error of the API: the status and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status; 0 if there was no answer.
    pub status: u16,
    /// The message of the `Status` object, or the body.
    pub message: String,
}

/// A running kube-apiserver.
#[derive(Debug)]
pub struct ApiServer {
    config: ApiServerConfig,
    /// The process.
    pub process: Process,
}

impl ApiServer {
    /// A kube-apiserver of that version that encrypts nothing yet; `None` if there is none.
    ///
    /// # Panics
    ///
    /// If its files cannot be written.
    #[must_use]
    #[allow(clippy::new_ret_no_self, reason = "it exists only when it has been started")]
    pub fn new(stage: &Stage, name: &str, version: &str, etcd: &Etcd) -> Option<ApiServerConfig> {
        let binary = components::kube_apiserver(version)?;
        let directory = stage.make_dir(name);
        let write = |file: &str, text: &str| {
            fs::write(directory.join(file), text).expect("the apiserver's files can be written");
        };
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let serving = rcgen::generate_simple_self_signed(names).expect("a certificate");
        write("tls.crt", &serving.cert.pem());
        write("tls.key", &serving.signing_key.serialize_pem());
        let signing = rcgen::KeyPair::generate().expect("a key");
        write("sa.key", &signing.serialize_pem());
        write("sa.pub", &signing.public_key_pem());
        write("tokens.csv", &format!("{TOKEN},admin,1,\"system:masters\"\n"));
        let port = free_port();
        let http = Http::new(port, Some(serving.cert.der()), Some(TOKEN.to_owned()));
        Some(ApiServerConfig {
            stage: stage.clone(),
            name: name.to_owned(),
            binary,
            etcd: etcd.url(),
            directory,
            port,
            http,
            reloads: false,
            patience: PATIENCE,
        })
    }

    /// Starts it again after it has ended, with an empty cache of seeds.
    pub fn start_again(&mut self) {
        self.process = self.config.spawn();
        self.wait_ready();
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.process.terminate();
    }

    fn wait_ready(&mut self) {
        let http = &self.config.http;
        // Health of the KMS is another matter, and some tests begin without it.
        let path = "/readyz?exclude=kms-providers&exclude=kms-provider-0";
        self.process.wait_ready_within(self.config.patience, || {
            match http.send("GET", path, None)? {
                answer if answer.status == 200 => Ok(()),
                answer => Err(answer.body),
            }
        });
    }

    /// How to talk to it.
    #[must_use]
    pub fn config(&self) -> &ApiServerConfig {
        &self.config
    }

    /// The check of the KMS providers: `Err` with what it says if it fails.
    pub fn kms_health(&self) -> Result<(), String> {
        let answer = self.config.http.send("GET", "/healthz/kms-providers", None)?;
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    }

    /// Creates a Secret with one value, `data.value`.
    pub fn try_create_secret(&self, name: &str, value: &str) -> Result<(), ApiError> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "default"},
            "data": {"value": STANDARD.encode(value)},
        });
        self.call("POST", "/api/v1/namespaces/default/secrets", Some(&object)).map(|_| ())
    }

    /// The same.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub fn create_secret(&self, name: &str, value: &str) {
        if let Err(error) = self.try_create_secret(name, value) {
            panic!("cannot create the Secret {name}: {error:?}");
        }
    }

    /// Creates a `ConfigMap` with one value, `data.value`.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub fn create_config_map(&self, name: &str, value: &str) {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "default"},
            "data": {"value": value},
        });
        if let Err(error) =
            self.call("POST", "/api/v1/namespaces/default/configmaps", Some(&object))
        {
            panic!("cannot create the ConfigMap {name}: {error:?}");
        }
    }

    /// The value of a Secret.
    pub fn read_secret(&self, name: &str) -> Result<String, ApiError> {
        let secret = self.call("GET", &secret_path(name), None)?;
        let value = secret["data"]["value"].as_str().unwrap_or_default();
        let value = STANDARD.decode(value).unwrap_or_default();
        Ok(String::from_utf8_lossy(&value).into_owned())
    }

    /// The value of a `ConfigMap`.
    pub fn read_config_map(&self, name: &str) -> Result<String, ApiError> {
        let path = format!("/api/v1/namespaces/default/configmaps/{name}");
        let map = self.call("GET", &path, None)?;
        Ok(map["data"]["value"].as_str().unwrap_or_default().to_owned())
    }

    /// Writes a Secret back as it is, which moves it to the present key.
    pub fn rewrite_secret(&self, name: &str) -> Result<(), ApiError> {
        let secret = self.call("GET", &secret_path(name), None)?;
        self.call("PUT", &secret_path(name), Some(&secret)).map(|_| ())
    }

    /// The names of all Secrets, by a list from etcd.
    pub fn list_secrets(&self) -> Result<Vec<String>, ApiError> {
        let list = self.call("GET", "/api/v1/namespaces/default/secrets", None)?;
        let names = list["items"].as_array().into_iter().flatten();
        Ok(names.filter_map(|item| Some(item["metadata"]["name"].as_str()?.to_owned())).collect())
    }

    /// A token of the service account `name`, made where it is missing, in the default namespace. It
    /// may have tokens reviewed, its own, too.
    ///
    /// # Panics
    ///
    /// If the API refuses.
    #[must_use]
    pub fn service_account_token(&self, name: &str) -> String {
        let made = |path: &str, object: &Value| match self.call("POST", path, Some(object)) {
            Ok(_) | Err(ApiError { status: 409, .. }) => {}
            Err(error) => panic!("{path}: {error:?}"),
        };
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        made(accounts, &json!({"metadata": {"name": name}}));
        let binding = json!({
            "metadata": {"name": format!("{name}-reviews-tokens")},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:auth-delegator",
            },
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
        });
        made("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding);
        let path = format!("{accounts}/{name}/token");
        let request = json!({"spec": {"expirationSeconds": 3600}});
        match self.call("POST", &path, Some(&request)) {
            Ok(answer) => answer["status"]["token"].as_str().unwrap_or_default().to_owned(),
            Err(error) => panic!("{path}: {error:?}"),
        }
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let send = self.config.http.send(method, path, body);
        let answer = send.map_err(|message| ApiError { status: 0, message })?;
        let value: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if (200..300).contains(&answer.status) {
            return Ok(value);
        }
        let message = value["message"].as_str().unwrap_or(&answer.body).to_owned();
        Err(ApiError { status: answer.status, message })
    }
}

impl ApiServerConfig {
    /// Encrypts Secrets and `ConfigMap`s with the plugin at `socket`, under the provider name `name`.
    ///
    /// # Panics
    ///
    /// If the configuration cannot be written.
    #[must_use]
    pub fn encrypt_with(self, name: &str, socket: &Path) -> Self {
        self.encrypt_by(&encryption_configuration(name, socket))
    }

    /// Encrypts by this EncryptionConfiguration; replaces the one before at once.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn encrypt_by(self, text: &str) -> Self {
        let new = self.encryption().with_extension("new");
        fs::write(&new, text).expect("the encryption configuration can be written");
        fs::rename(new, self.encryption()).expect("the encryption configuration can be replaced");
        self
    }

    /// It looks at its EncryptionConfiguration each minute.
    #[must_use]
    pub fn reload_automatically(self) -> Self {
        Self { reloads: true, ..self }
    }

    /// Waits so long for its start.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Starts it and waits until it serves; its KMS provider may be unhealthy.
    #[must_use]
    pub fn start(self) -> ApiServer {
        let process = self.spawn();
        let mut apiserver = ApiServer { config: self, process };
        apiserver.wait_ready();
        apiserver.wait_namespace();
        apiserver
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Its certificate, which is its own authority.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("tls.crt")
    }

    /// What its administrator says who he is with.
    #[must_use]
    pub fn bearer_token(&self) -> &'static str {
        TOKEN
    }

    fn encryption(&self) -> PathBuf {
        self.directory.join("encryption.yaml")
    }

    fn spawn(&self) -> Process {
        let mut command = Command::new(&self.binary);
        command.arg("--etcd-servers").arg(&self.etcd);
        command.args(["--bind-address", "127.0.0.1", "--advertise-address", "192.0.2.1"]);
        command.arg("--secure-port").arg(self.port.to_string());
        for (flag, file) in [
            ("--tls-cert-file", "tls.crt"),
            ("--tls-private-key-file", "tls.key"),
            ("--service-account-key-file", "sa.pub"),
            ("--service-account-signing-key-file", "sa.key"),
            ("--token-auth-file", "tokens.csv"),
            ("--cert-dir", "certs"),
        ] {
            command.arg(flag).arg(self.directory.join(file));
        }
        command.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
        command.args(["--service-cluster-ip-range", "10.0.0.0/24", "--authorization-mode", "RBAC"]);
        command.args(["--disable-admission-plugins", "ServiceAccount", "--v", "2"]);
        if self.encryption().exists() {
            command.arg("--encryption-provider-config").arg(self.encryption());
        }
        if self.reloads {
            command.arg("--encryption-provider-config-automatic-reload=true");
        }
        Process::spawn(&self.stage, &self.name, &mut command)
    }
}

impl ApiServer {
    /// The namespace is made in the background after the start.
    fn wait_namespace(&self) {
        within(self.config.patience, "the default namespace", || {
            self.call("GET", "/api/v1/namespaces/default", None).map_err(|error| error.message)
        });
    }
}

/// An EncryptionConfiguration for Secrets and `ConfigMap`s with the plugin at `socket`, under the provider name
/// `name`.
#[must_use]
pub fn encryption_configuration(name: &str, socket: &Path) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets, configmaps]\n  providers:\n\
         \x20 - kms: {{apiVersion: v2, name: {name}, endpoint: 'unix://{}', timeout: 3s}}\n\
         \x20 - identity: {{}}\n",
        socket.display()
    )
}

fn secret_path(name: &str) -> String {
    format!("/api/v1/namespaces/default/secrets/{name}")
}
