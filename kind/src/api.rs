//! A kube-apiserver, spoken to as its administrator.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// How long an answer may take: longer than kube-apiserver waits for a plugin.
const PATIENCE: Duration = Duration::from_secs(20);

/// The Secrets of the default namespace.
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// One of a cluster's kube-apiservers; clones share its connections.
#[derive(Debug, Clone)]
pub struct Api {
    agent: ureq::Agent,
    base: String,
}

/// Why a call has not succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status; 0 if there was no answer.
    pub status: u16,
    /// The message of the `Status` object, or the body.
    pub message: String,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.status, self.message)
    }
}

impl From<ApiError> for String {
    fn from(error: ApiError) -> Self {
        error.to_string()
    }
}

/// The parts of a kubeconfig with one cluster and one user.
#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: ClusterEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct NamedUser {
    user: UserEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    client_certificate_data: String,
    client_key_data: String,
}

impl Api {
    /// The one at this address, with the authority and the user of a kubeconfig.
    pub fn new(address: &str, kubeconfig: &str) -> Result<Self, String> {
        let tls =
            tls(kubeconfig).map_err(|error| format!("the administrator's kubeconfig: {error}"))?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .tls_config(tls)
            .build();
        Ok(Self { agent: config.into(), base: format!("https://{address}:6443") })
    }

    /// Creates a Secret with one value in the default namespace.
    pub fn create_secret(&self, name: &str, value: &str) -> Result<(), ApiError> {
        self.call("POST", SECRETS, Some(&secret(name, value))).map(|_| ())
    }

    /// Gives a Secret another value, and creates it if it is not there.
    pub fn write_secret(&self, name: &str, value: &str) -> Result<(), ApiError> {
        match self.call("PUT", &format!("{SECRETS}/{name}"), Some(&secret(name, value))) {
            Err(ApiError { status: 404, .. }) => self.create_secret(name, value),
            written => written.map(|_| ()),
        }
    }

    /// Makes sure that there is a ConfigMap with one value in the default namespace.
    pub fn write_config_map(&self, name: &str, value: &str) -> Result<(), ApiError> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"value": value},
        });
        match self.call("POST", "/api/v1/namespaces/default/configmaps", Some(&object)) {
            Err(ApiError { status: 409, .. }) => Ok(()),
            created => created.map(|_| ()),
        }
    }

    /// The value of a Secret, read from etcd.
    pub fn read_secret(&self, name: &str) -> Result<String, ApiError> {
        self.call("GET", &format!("{SECRETS}/{name}"), None).map(|secret| value_of(&secret))
    }

    /// Makes sure that a Secret is there and cannot be decrypted: kube-apiserver calls that an internal error. It
    /// answers so long before it is live: without a plugin it waits for a minute for what it cannot list, and is
    /// never ready.
    pub fn cannot_decrypt(&self, name: &str) -> Result<(), String> {
        match self.read_secret(name) {
            Err(ApiError { status: 500, .. }) => Ok(()),
            Err(error) => Err(format!("Secret {name}: {error}")),
            Ok(_) => Err(format!("Secret {name} can be read")),
        }
    }

    /// All Secrets of all namespaces, by a list: `namespace/name`, and the value where there is one.
    pub fn secrets(&self) -> Result<BTreeMap<String, String>, ApiError> {
        let list = self.call("GET", "/api/v1/secrets", None)?;
        let items = list["items"].as_array().into_iter().flatten();
        let named = items.filter_map(|item| {
            let metadata = &item["metadata"];
            let name =
                format!("{}/{}", metadata["namespace"].as_str()?, metadata["name"].as_str()?);
            Some((name, value_of(item)))
        });
        Ok(named.collect())
    }

    /// Its own check of the KMS: `Err` with what it says if it fails.
    pub fn kms_health(&self) -> Result<(), String> {
        match self.call("GET", "/healthz/kms-providers", None) {
            // It has no KMS.
            Ok(_) | Err(ApiError { status: 404, .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether it serves: with `/readyz`, but for the KMS, whose health is another matter.
    pub fn ready(&self) -> Result<(), String> {
        let path = "/readyz?exclude=kms-providers";
        self.call("GET", path, None).map(|_| ()).map_err(String::from)
    }

    /// The lines of its metrics that begin with `name`.
    pub fn metrics(&self, name: &str) -> Result<Vec<String>, String> {
        let text = self.call("GET", "/metrics", None)?;
        let text = text.as_str().unwrap_or_default();
        Ok(text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect())
    }

    /// Makes a call; what is no JSON comes back as a string.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let lost = |message: String| ApiError { status: 0, message };
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .body(body.map(Value::to_string).unwrap_or_default())
            .map_err(|error| lost(error.to_string()))?;
        let sent = if body.is_some() {
            self.agent.run(request)
        } else {
            self.agent.run(request.map(|_| ()))
        };
        let mut answer = sent.map_err(|error| lost(error.to_string()))?;
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string();
        let text = text.map_err(|error| lost(error.to_string()))?;
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if answer.status().is_success() {
            return Ok(value);
        }
        let message = value["message"].as_str().or(value.as_str()).unwrap_or_default().to_owned();
        Err(ApiError { status: answer.status().as_u16(), message })
    }
}

fn tls(kubeconfig: &str) -> Result<TlsConfig, String> {
    let config: Kubeconfig =
        serde_saphyr::from_str(kubeconfig).map_err(|error| error.to_string())?;
    let cluster = config.clusters.first().ok_or("it names no cluster")?;
    let user = &config.users.first().ok_or("it names no user")?.user;
    let decode = |data: &str| STANDARD.decode(data).map_err(|error| error.to_string());
    let pem = |error: ureq::Error| error.to_string();
    let authority = decode(&cluster.cluster.certificate_authority_data)?;
    let authority = Certificate::from_pem(&authority).map_err(pem)?;
    let certificate = decode(&user.client_certificate_data)?;
    let certificate = Certificate::from_pem(&certificate).map_err(pem)?;
    let key = PrivateKey::from_pem(&decode(&user.client_key_data)?).map_err(pem)?;
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[authority]))
        .client_cert(Some(ClientCert::new_with_certs(&[certificate], key)))
        .build())
}

fn secret(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "data": {"value": STANDARD.encode(value)},
    })
}

/// What a Secret of ours holds; empty for others.
fn value_of(secret: &Value) -> String {
    let value = STANDARD.decode(secret["data"]["value"].as_str().unwrap_or_default());
    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
}
