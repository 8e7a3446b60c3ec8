//! A node: a container with systemd, a kubelet and a control plane.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::api::Api;
use crate::clock::{pause, within};
use crate::command;

/// How long a control plane may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// etcdctl of the node's own etcd. It lies in etcd's container, and is static.
const ETCDCTL: &str = "ETCDCTL_ENDPOINTS=https://127.0.0.1:2379 \
    ETCDCTL_CACERT=/etc/kubernetes/pki/etcd/ca.crt ETCDCTL_CERT=/etc/kubernetes/pki/etcd/server.crt \
    ETCDCTL_KEY=/etc/kubernetes/pki/etcd/server.key /proc/$(pgrep -xo etcd)/root/usr/local/bin/etcdctl";

/// A control-plane node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Of the container, and in the cluster.
    pub name: String,
}

impl Node {
    /// Runs a shell script in it, as root; gives what that printed.
    pub fn sh(&self, script: &str) -> Result<String, String> {
        self.bytes(script, b"").map(|output| String::from_utf8_lossy(&output).trim().to_owned())
    }

    /// The same with something to read, and bytes.
    pub fn bytes(&self, script: &str, input: &[u8]) -> Result<Vec<u8>, String> {
        let args = ["exec", "--interactive", &self.name, "bash", "-o", "pipefail", "-euc", script];
        command::feed("docker", &args, input)
    }

    /// Replaces a file, whole or not at all.
    pub fn write(&self, path: &str, content: &str) -> Result<(), String> {
        let script = format!("cat > {path}.new && mv {path}.new {path}");
        self.bytes(&script, content.as_bytes()).map(|_| ())
    }

    /// Its kube-apiserver. A node that was stopped may come back with another address.
    pub fn api(&self) -> Result<Api, String> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = command::text("docker", &["inspect", "--format", format, &self.name])?;
        Api::new(&address, &self.sh("cat /etc/kubernetes/admin.conf")?)
    }

    /// Waits until its kube-apiserver serves and finds the KMS in order.
    pub fn wait_healthy(&self) -> Result<Api, String> {
        within(PATIENCE, &format!("the kube-apiserver of {} and its KMS", self.name), || {
            let api = self.api()?;
            api.ready()?;
            api.kms_health().map(|()| api)
        })
    }

    /// Kills its kube-apiserver, which the kubelet starts again with nothing in memory, and waits for that.
    pub fn restart_apiserver(&self) -> Result<Api, String> {
        // Asked to end, it would wait for those who watch, for a minute.
        self.end("kube-apiserver", "KILL")?;
        self.wait_healthy()
    }

    /// Ends the plugin, whose keeper starts it again, and waits until Status is ok; gives the key_id.
    pub fn restart_plugin(&self) -> Result<String, String> {
        self.end("kleidi", "TERM")?;
        self.key_id()
    }

    /// Ends the oldest process of this name, and waits until it is gone.
    fn end(&self, program: &str, signal: &str) -> Result<(), String> {
        let script = format!(
            "pid=$(pgrep -xo {program}); kill -{signal} $pid; while [ -d /proc/$pid ]; do sleep 0.1; done"
        );
        self.sh(&script).map(|_| ())
    }

    /// The key_id of the plugin on its socket, once Status is ok.
    pub fn key_id(&self) -> Result<String, String> {
        within(PATIENCE, &format!("the plugin of {}", self.name), || {
            let status = self.sh("kleidi status --socket unix:///run/kleidi/kms.sock")?;
            let key_id = status.lines().find_map(|line| line.strip_prefix("key_id"));
            key_id.map(|id| id.trim().to_owned()).ok_or_else(|| format!("no key_id in {status:?}"))
        })
    }

    /// All values below `prefix` in this node's own member of etcd, by key.
    pub fn etcd(&self, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let output = self.bytes(
            &format!("{ETCDCTL} get --prefix {prefix} --consistency s --write-out json"),
            b"",
        )?;
        let answer: Value = serde_json::from_slice(&output).map_err(|error| error.to_string())?;
        let decode = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default());
        let pairs = answer["kvs"].as_array().into_iter().flatten().map(|pair| {
            let (key, value) = (decode(&pair["key"])?, decode(&pair["value"])?);
            Ok((String::from_utf8_lossy(&key).into_owned(), value))
        });
        pairs.collect::<Result<_, base64::DecodeError>>().map_err(|error| error.to_string())
    }

    /// Puts a value into etcd, past kube-apiserver.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.bytes(&format!("{ETCDCTL} put {key}"), value).map(|_| ())
    }

    /// Which of these texts are in the files of etcd's data directory, each with one of the files.
    pub fn in_etcds_files(&self, texts: &[String]) -> Result<BTreeMap<String, String>, String> {
        // 1 says that there is none. 2 also that a file has gone meanwhile, as a snapshot being written does.
        let script = "{ LC_ALL=C grep --recursive --only-matching --with-filename --text --fixed-strings --file=- \
                      /var/lib/etcd || [ $? = 1 ]; } | sort -u";
        let texts = texts.join("\n");
        let listed = within(Duration::from_secs(60), "a whole search of etcd's files", || {
            self.bytes(script, texts.as_bytes())
        })?;
        let listed = String::from_utf8_lossy(&listed);
        let found = listed.lines().filter_map(|line| line.split_once(':'));
        Ok(found.map(|(file, text)| (text.to_owned(), file.to_owned())).collect())
    }

    /// Makes sure that no image was pulled since the node is there: all it needs was in it from the start.
    pub fn nothing_pulled(&self) -> Result<(), String> {
        let log = self.sh("journalctl --no-pager --output cat --unit containerd")?;
        // What the log does not even have of what is there for certain, it cannot deny.
        if !log.contains("RunPodSandbox") {
            return Err(format!("containerd's journal on {} says nothing of pods", self.name));
        }
        match log.lines().find(|line| line.contains("PullImage")) {
            None => Ok(()),
            Some(line) => Err(format!("{} has pulled an image: {line}", self.name)),
        }
    }

    /// Stops it as a machine that is shut down: kube-apiserver waits for a minute for its watches, and what has not
    /// ended after 90 s is ended by systemd.
    pub fn stop(&self) -> Result<(), String> {
        command::run("docker", &["stop", "--time", "120", &self.name]).map(|_| ())
    }

    /// Cuts its power.
    pub fn cut_power(&self) -> Result<(), String> {
        command::run("docker", &["kill", &self.name])?;
        within(PATIENCE, "the end of a node", || {
            match command::text(
                "docker",
                &["inspect", "--format", "{{.State.Running}}", &self.name],
            )? {
                running if running == "false" => Ok(()),
                running => Err(format!("running: {running}")),
            }
        })
    }

    /// Starts it again.
    pub fn start(&self) -> Result<(), String> {
        // Docker may still be letting go of its mounts.
        within(Duration::from_secs(20), "a node to start", || {
            command::run("docker", &["start", &self.name]).map(|_| ()).inspect_err(|_| {
                pause(Duration::from_secs(1));
            })
        })
    }
}
