//! Three nodes of OpenBao that replicate to each other.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::port::free_port;
use crate::vault::static_seal;
use crate::{Authority, Product, Stage, VaultServer, eventually};

/// How long a node may take to say whether it leads: one that hangs must not hide the others.
const PATIENCE: Duration = Duration::from_secs(2);

/// What operators are given.
const MANUAL: &str = include_str!("../../configuration/vault/server.hcl");

/// A running cluster with TLS; its nodes unseal themselves.
#[derive(Debug)]
pub struct BaoCluster {
    /// The nodes, all with the same root token.
    pub nodes: Vec<VaultServer>,
}

impl BaoCluster {
    /// Starts three nodes and waits until each of them has a vote; `None` if there is no OpenBao.
    #[must_use]
    pub fn start(stage: &Stage, name: &str, authority: &Authority) -> Option<Self> {
        Self::start_with(stage, name, authority, &json!({}))
    }

    /// The same with more in the configuration of each.
    #[must_use]
    pub fn start_with(
        stage: &Stage,
        name: &str,
        authority: &Authority,
        more: &Value,
    ) -> Option<Self> {
        let ports = [free_port(), free_port(), free_port()];
        let joins: Vec<_> = ports
            .iter()
            .map(|port| {
                json!({
                    "leader_api_addr": format!("https://127.0.0.1:{port}"),
                    "leader_ca_cert_file": authority.file(),
                })
            })
            .collect();
        Self::of(name, ports, |node, port| {
            let mut configuration = json!({
                "storage": {"raft": {
                    "path": stage.make_dir(&format!("{node}-data")),
                    "node_id": node,
                    "performance_multiplier": "1",
                    "retry_join": joins,
                }},
                "seal": static_seal(&stage.path(&format!("{name}.seal"))),
            });
            for (key, value) in more.as_object().into_iter().flatten() {
                configuration[key] = value.clone();
            }
            VaultServer::configured(stage, node, Product::OpenBao, authority, port, configuration)
        })
    }

    /// Starts three nodes as the operator's manual does: of its configuration only hosts, ports and
    /// directories are others.
    #[must_use]
    pub fn as_in_the_manual(stage: &Stage, authority: &Authority) -> Option<Self> {
        let ports = [free_port(), free_port(), free_port()];
        let cluster_ports = [free_port(), free_port(), free_port()];
        let _ = static_seal(&stage.path("seal.key"));
        let shared = ["log", "srv"].map(|name| stage.make_dir(name).display().to_string());
        Self::of("vault", ports, |node, port| {
            let number = ports.iter().position(|one| *one == port)?;
            let data = stage.make_dir(&format!("{node}-data")).display().to_string();
            VaultServer::written(stage, node, Product::OpenBao, authority, port, |files| {
                let path = |path: &Path| path.display().to_string();
                let replaced = [
                    ("0.0.0.0:8200", format!("127.0.0.1:{port}")),
                    ("0.0.0.0:8201", format!("127.0.0.1:{}", cluster_ports[number])),
                    ("/etc/openbao/server.crt", path(&files.certificate)),
                    ("/etc/openbao/server.key", path(&files.key)),
                    ("/etc/openbao/ca.crt", path(&authority.file())),
                    ("/etc/openbao/seal.key", path(&stage.path("seal.key"))),
                    ("/var/log/openbao", shared[0].clone()),
                    ("/srv/openbao", shared[1].clone()),
                    ("/var/lib/openbao", data),
                ];
                let text = manual_for(node, ports, cluster_ports);
                let text = replaced.iter().fold(text, |text, (from, to)| text.replace(from, to));
                ("hcl", text)
            })
        })
    }

    /// The first is initialised, the others join it.
    fn of(
        name: &str,
        ports: [u16; 3],
        start: impl Fn(&str, u16) -> Option<VaultServer>,
    ) -> Option<Self> {
        let mut nodes = Vec::new();
        for (number, port) in ports.into_iter().enumerate() {
            let mut server = start(&format!("{name}-{number}"), port)?;
            if number == 0 {
                // Before the others look for a cluster: they look every two seconds.
                server.initialise();
                server.wait_ready();
                hasten_votes(&server);
            }
            nodes.push(server);
        }
        let root_token = nodes[0].root_token().to_owned();
        for node in &mut nodes {
            node.wait_ready();
            node.adopt_root_token(root_token.clone());
        }
        let cluster = Self { nodes };
        cluster.wait_votes();
        Some(cluster)
    }

    /// The number of the node that leads; waits for one to be elected.
    ///
    /// # Panics
    ///
    /// If none is elected in a minute.
    #[must_use]
    pub fn leader(&self) -> usize {
        eventually("a leader", || {
            let leads = |node: &VaultServer| {
                let answer =
                    node.try_call(PATIENCE, node.root_token(), "GET", "sys/leader", &Value::Null);
                answer.is_ok_and(|(_, answer)| answer["is_self"] == true)
            };
            self.nodes.iter().position(leads).ok_or_else(|| "none".to_owned())
        })
    }

    /// Waits until every node serves and all name the same leader: its number.
    ///
    /// # Panics
    ///
    /// If they do not in a minute.
    #[must_use]
    pub fn wait_whole(&self) -> usize {
        eventually("every node to serve and to know the same leader", || {
            let mut leaders = Vec::new();
            for node in &self.nodes {
                let root = node.root_token();
                let (_, answer) =
                    node.try_call(PATIENCE, root, "GET", "sys/leader", &Value::Null)?;
                let address = answer["leader_address"].as_str().unwrap_or_default().to_owned();
                leaders.push((address, answer["is_self"] == true));
            }
            let leads = leaders.iter().position(|(_, is_self)| *is_self);
            let leads = leads.ok_or_else(|| format!("{leaders:?}"))?;
            let agreed = leaders.iter().enumerate().all(|(number, (address, is_self))| {
                *address == self.nodes[leads].address() && *is_self == (number == leads)
            });
            if agreed { Ok(leads) } else { Err(format!("{leaders:?}")) }
        })
    }

    /// All nodes, that one first.
    #[must_use]
    pub fn beginning_with(&self, first: usize) -> Vec<&VaultServer> {
        let (before, after) = self.nodes.split_at(first);
        after.iter().chain(before).collect()
    }

    fn wait_votes(&self) {
        eventually("three votes", || {
            let path = "sys/storage/raft/configuration";
            let (_, answer) = self.nodes[0].call("GET", path, &Value::Null);
            let servers = answer["data"]["config"]["servers"].as_array();
            let voters = servers.into_iter().flatten().filter(|server| server["voter"] == true);
            if voters.count() == self.nodes.len() { Ok(()) } else { Err(answer.to_string()) }
        });
    }
}

/// Gives a node its vote after a second; otherwise it takes ten.
fn hasten_votes(leader: &VaultServer) {
    let settings = json!({"server_stabilization_time": "1s"});
    eventually("the first node to lead", || {
        let path = "sys/storage/raft/autopilot/configuration";
        match leader.call("POST", path, &settings) {
            (200..300, _) => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    });
}

/// The manual's configuration for one of the nodes, which are at these ports of this machine.
fn manual_for(node: &str, ports: [u16; 3], cluster_ports: [u16; 3]) -> String {
    // What is the node's own, as the manual says.
    let own = |line: &str| {
        let of_node = ["api_addr", "cluster_addr", "node_id"]
            .iter()
            .any(|key| line.trim_start().starts_with(key));
        if of_node { line.replace("vault-0", node) } else { line.to_owned() }
    };
    let text = MANUAL.lines().map(own).collect::<Vec<_>>().join("\n");
    let addresses = ports.iter().zip(cluster_ports).enumerate();
    addresses.fold(text, |text, (number, (port, cluster_port))| {
        text.replace(&format!("vault-{number}.example:8200"), &format!("127.0.0.1:{port}"))
            .replace(&format!("vault-{number}.example:8201"), &format!("127.0.0.1:{cluster_port}"))
    })
}
