//! Three nodes of OpenBao that replicate to each other.

use std::time::Duration;

use serde_json::{Value, json};

use crate::process::free_port;
use crate::vault::static_seal;
use crate::{Authority, Product, Stage, VaultServer, eventually};

/// How long a node may take to say whether it leads: one that hangs must not hide the others.
const PATIENCE: Duration = Duration::from_secs(2);

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
        let mut nodes = Vec::new();
        for (number, port) in ports.into_iter().enumerate() {
            let node = format!("{name}-{number}");
            let configuration = json!({
                "storage": {"raft": {
                    "path": stage.make_dir(&format!("{node}-data")),
                    "node_id": node,
                    "performance_multiplier": "1",
                    "retry_join": joins,
                }},
                "seal": static_seal(&stage.path(&format!("{name}.seal"))),
            });
            let product = Product::OpenBao;
            let mut server =
                VaultServer::configured(stage, &node, product, authority, port, configuration)?;
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
