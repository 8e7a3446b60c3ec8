//! What one wants to see of a cluster in which something failed.

use std::fs;
use std::path::Path;

use crate::node::Node;
use crate::{cluster, command, progress};

/// What is asked of each node: a file's name, and a script that prints its content.
const ASKED: &[(&str, &str)] = &[
    ("journal.log", "journalctl --no-pager --output short-iso-precise"),
    (
        "kleidi.log",
        "cat /var/log/pods/kube-system_kleidi*/*/*.log; journalctl --no-pager --unit kleidi.service",
    ),
    ("apiserver.log", "cat /var/log/pods/kube-system_kube-apiserver-*/*/*.log"),
    ("etcd.log", "cat /var/log/pods/kube-system_etcd-*/*/*.log"),
    (
        "containers.txt",
        "ctr --namespace k8s.io tasks list; ls -l /run/kleidi /etc/kubernetes/manifests",
    ),
    ("status.txt", "kleidi status --socket unix:///run/kleidi/kms.sock 2>&1"),
    ("encryption.yaml", "cat /etc/kubernetes/kleidi/encryption.yaml"),
    (
        "cluster.txt",
        "export KUBECONFIG=/etc/kubernetes/admin.conf; kubectl get nodes,pods --all-namespaces -o wide 2>&1; \
         kubectl get events --all-namespaces 2>&1; kubectl get --raw /healthz/kms-providers 2>&1",
    ),
];

/// Writes what there is into the directory `at`; what cannot be had is left out.
pub fn collect(name: &str, at: &Path) {
    for node in cluster::nodes(name).unwrap_or_default() {
        let directory = at.join(&node.name);
        if let Err(error) = fs::create_dir_all(&directory) {
            progress::complain(&format!("{}: {error}", directory.display()));
            return;
        }
        for (file, script) in ASKED {
            let _ = fs::write(directory.join(file), ask(&node, script));
        }
    }
    for (container, file) in
        [("openbao", "openbao.log"), ("external-load-balancer", "balancer.log")]
    {
        let script = format!("docker logs {name}-{container} 2>&1");
        if let Ok(log) = command::run("sh", &["-c", &script]) {
            let _ = fs::write(at.join(file), log);
        }
    }
}

/// What a script prints, also if some of it fails.
fn ask(node: &Node, script: &str) -> Vec<u8> {
    let asked = format!("{{ {script}; }} 2>&1 || true");
    node.bytes(&asked, b"").unwrap_or_else(String::into_bytes)
}
