//! etcd, and what is in it byte for byte.

use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::Http;
use crate::port::free_port;
use crate::process::Process;
use crate::{Stage, components};

/// A running etcd with an empty store.
#[derive(Debug)]
pub struct Etcd {
    binary: PathBuf,
    stage: Stage,
    command: Command,
    http: Http,
    port: u16,
    /// The process.
    pub process: Process,
}

impl Etcd {
    /// Starts one; `None` if there is no etcd.
    #[must_use]
    pub fn start(stage: &Stage) -> Option<Self> {
        let binary = components::etcd()?;
        let (port, peers) = (free_port(), free_port());
        let (url, peer_url) =
            (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
        let mut command = Command::new(&binary);
        command.arg("--data-dir").arg(stage.path("etcd"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer_url]);
        command.args(["--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("default={peer_url}")]);
        // The data is thrown away, and disks of test machines are slow.
        command.arg("--unsafe-no-fsync");
        let process = Process::spawn(stage, "etcd-log", &mut command);
        let (stage, http) = (stage.clone(), Http::new(port, None, None));
        let mut etcd = Self { binary, stage, command, http, port, process };
        etcd.wait_ready();
        Some(etcd)
    }

    /// Kills it, and starts it again with what is stored, on the same port.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = Process::spawn(&self.stage, "etcd-log", &mut self.command);
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        let http = &self.http;
        self.process.wait_ready(|| match http.send("GET", "/health", None)? {
            answer if answer.body.contains("\"true\"") => Ok(()),
            answer => Err(answer.body),
        });
    }

    /// Where it listens, for kube-apiserver.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `etcdctl`, if it is beside this etcd.
    #[must_use]
    pub fn etcdctl(&self) -> PathBuf {
        self.binary.with_file_name("etcdctl")
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.range(key, None).pop().map(|(_, value)| value)
    }

    /// All keys that begin with `prefix`, with their values.
    #[must_use]
    pub fn list(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        self.range(prefix, Some(&end))
    }

    /// Sets a key.
    pub fn put(&self, key: &str, value: &[u8]) {
        self.call("put", &json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)}));
    }

    fn range(&self, key: &str, end: Option<&[u8]>) -> Vec<(String, Vec<u8>)> {
        let mut request = json!({"key": STANDARD.encode(key)});
        if let Some(end) = end {
            request["range_end"] = STANDARD.encode(end).into();
        }
        let answer = self.call("range", &request);
        let text = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default());
        answer["kvs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pair| {
                let key = String::from_utf8(text(&pair["key"]).ok()?).ok()?;
                Some((key, text(&pair["value"]).ok()?))
            })
            .collect()
    }

    fn call(&self, method: &str, request: &Value) -> Value {
        match self.http.send("POST", &format!("/v3/kv/{method}"), Some(request)) {
            Ok(answer) if answer.status == 200 => {
                serde_json::from_str(&answer.body).unwrap_or_default()
            }
            Ok(answer) => panic!("etcd {method}: {} {}", answer.status, answer.body),
            Err(error) => panic!("etcd {method}: {error}"),
        }
    }
}
