//! What a cluster is to be like.

use serde_json::{Value, json};

/// Where the key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kms {
    /// On a SoftHSM token, of which each node has a copy.
    SoftHsm,
    /// In the transit engine of an OpenBao on the cluster's network.
    OpenBao,
}

impl Kms {
    /// For the terminal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SoftHsm => "SoftHSM",
            Self::OpenBao => "OpenBao",
        }
    }
}

/// How kleidi runs on the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    /// A static pod: the recommended way for nodes of kubeadm.
    StaticPod,
    /// A service with socket activation.
    Systemd,
    /// Not before somebody applies a DaemonSet.
    DaemonSet,
}

impl Install {
    /// As `prepare.sh` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StaticPod => "static-pod",
            Self::Systemd => "systemd",
            Self::DaemonSet => "daemon-set",
        }
    }
}

/// A broken plugin in place of kleidi: with it `encrypts-at-rest` has to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Broken {
    /// It encrypts nothing: the seed goes into etcd in base64.
    Identity,
    /// Encrypt names another key_id than Status.
    OtherKeyId,
}

impl Broken {
    /// As `ci/part-image` has it.
    #[must_use]
    pub fn image(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::OtherKeyId => "other-key-id",
        }
    }

    /// What its entry point is called with.
    #[must_use]
    pub fn args(self) -> Value {
        match self {
            Self::Identity => json!(["-socket", "/run/kleidi/kms.sock", "-version", "v2"]),
            Self::OtherKeyId => json!([
                "reference",
                "serve",
                "--dir",
                "/run/kleidi",
                "--name",
                "kms",
                "--mutant",
                "encrypts-under-other-id",
            ]),
        }
    }
}

/// A cluster that is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the key is.
    pub kms: Kms,
    /// How kleidi runs.
    pub install: Install,
    /// How many nodes, which are all control planes.
    pub control_planes: usize,
    /// The EncryptionConfiguration that the cluster begins with.
    pub encryption: String,
    /// Lines behind what kleidi.yaml has in any case.
    pub more_configuration: String,
}

impl Plan {
    /// One node, a static pod, and encryption from the first write on.
    #[must_use]
    pub fn new(kms: Kms) -> Self {
        Self {
            kms,
            install: Install::StaticPod,
            control_planes: 1,
            encryption: encryption(&[KMS, IDENTITY]),
            more_configuration: String::new(),
        }
    }

    /// Installed in this way.
    #[must_use]
    pub fn install(self, install: Install) -> Self {
        Self { install, ..self }
    }

    /// With so many nodes.
    #[must_use]
    pub fn control_planes(self, control_planes: usize) -> Self {
        Self { control_planes, ..self }
    }

    /// Begins with these providers instead.
    #[must_use]
    pub fn providers(self, providers: &[&str]) -> Self {
        Self { encryption: encryption(providers), ..self }
    }
}

/// The provider's name in the EncryptionConfiguration.
pub const PROVIDER: &str = "kleidi";

/// kleidi, in an EncryptionConfiguration.
pub const KMS: &str =
    "kms: {apiVersion: v2, name: kleidi, endpoint: unix:///run/kleidi/kms.sock, timeout: 3s}";

/// No encryption.
pub const IDENTITY: &str = "identity: {}";

/// An EncryptionConfiguration for Secrets: the first of the providers writes, all read.
#[must_use]
pub fn encryption(providers: &[&str]) -> String {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
                \x20 - resources: [secrets]\n    providers:\n";
    let lines = providers.iter().map(|provider| format!("      - {provider}\n"));
    head.to_owned() + &lines.collect::<String>()
}

/// The configuration of the cluster for kind; in JSON, which is YAML. `seed` is mounted on each node.
#[must_use]
pub fn kind_configuration(plan: &Plan, seed: &str, minor: u32) -> Value {
    let mounts = json!([
        {"hostPath": seed, "containerPath": "/kind/kleidi", "readOnly": true},
        {
            "hostPath": format!("{seed}/kubelet.conf"),
            "containerPath": "/etc/systemd/system/kubelet.service.d/05-kleidi.conf",
            "readOnly": true,
        },
    ]);
    let node = json!({"role": "control-plane", "extraMounts": mounts});
    json!({
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "kind": "Cluster",
        "nodes": vec![node; plan.control_planes],
        "kubeadmConfigPatches": [cluster_patch(plan.control_planes, minor).to_string()],
    })
}

/// Arguments of a program in kubeadm's configuration. Since 1.36 kind speaks v1beta4, in which they are a list.
fn arguments(of: &[(&str, &str)], minor: u32) -> Value {
    if minor >= 36 {
        of.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    } else {
        of.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
    }
}

/// What the manual has in kubeadm's ClusterConfiguration.
fn cluster_patch(control_planes: usize, minor: u32) -> Value {
    let mut patch = json!({
        "kind": "ClusterConfiguration",
        "apiServer": {
            "extraArgs": arguments(
                &[
                    ("encryption-provider-config", "/etc/kubernetes/kleidi/encryption.yaml"),
                    ("encryption-provider-config-automatic-reload", "true"),
                ],
                minor,
            ),
            "extraVolumes": [
                {
                    "name": "kleidi-config", "hostPath": "/etc/kubernetes/kleidi",
                    "mountPath": "/etc/kubernetes/kleidi", "readOnly": true, "pathType": "Directory",
                },
                {
                    "name": "kleidi-socket", "hostPath": "/run/kleidi",
                    "mountPath": "/run/kleidi", "pathType": "DirectoryOrCreate",
                },
            ],
        },
    });
    if control_planes > 1 {
        // Three members on a laptop's disk: with the default of a second a slow one ends a leader's term.
        let patient = [("heartbeat-interval", "500"), ("election-timeout", "5000")];
        patch["etcd"] = json!({"local": {"extraArgs": arguments(&patient, minor)}});
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_is_that_of_the_manual() {
        let manual: Value =
            serde_saphyr::from_str(include_str!("../../configuration/encryption.yaml")).unwrap();
        let ours: Value = serde_saphyr::from_str(&encryption(&[KMS, IDENTITY])).unwrap();
        assert_eq!(ours, manual);
        assert_eq!(ours["resources"][0]["providers"][0]["kms"]["name"], PROVIDER);
    }

    #[test]
    fn arguments_are_a_list_since_1_36() {
        let of = |minor| cluster_patch(1, minor)["apiServer"]["extraArgs"].clone();
        assert_eq!(of(37)[1]["value"], "true");
        assert_eq!(of(35)["encryption-provider-config-automatic-reload"], "true");
    }

    #[test]
    fn several_members_of_etcd_are_patient() {
        assert!(cluster_patch(1, 37)["etcd"].is_null());
        let of = |minor| cluster_patch(3, minor)["etcd"]["local"]["extraArgs"].clone();
        assert_eq!(of(37)[1], json!({"name": "election-timeout", "value": "5000"}));
        assert_eq!(of(35)["heartbeat-interval"], "500");
    }

    #[test]
    fn each_node_is_prepared() {
        let config = kind_configuration(&Plan::new(Kms::SoftHsm).control_planes(3), "/seed", 37);
        assert_eq!(config["nodes"].as_array().unwrap().len(), 3);
        assert_eq!(config["nodes"][2]["extraMounts"][1]["hostPath"], "/seed/kubelet.conf");
    }
}
