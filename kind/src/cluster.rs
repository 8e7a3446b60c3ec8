//! A cluster on kind, removed when it is dropped or when this process ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::api::Api;
use crate::clock::Stopwatch;
use crate::node::Node;
use crate::openbao::{self, OpenBao};
use crate::plan::{Broken, Install, Kms, Plan, kind_configuration};
use crate::{balancer, command, evidence, guard, progress, seed, tools};

/// What the names of all our clusters begin with.
pub const PREFIX: &str = "kleidi-";

/// A running cluster, and what has been written to it.
#[derive(Debug)]
pub struct Cluster {
    /// Its name for kind.
    pub name: String,
    /// What it was made by.
    pub plan: Plan,
    /// Its nodes; each has a control plane.
    pub nodes: Vec<Node>,
    /// Where the key is, if it is there.
    pub openbao: Option<OpenBao>,
    /// Begins every value of its Secrets.
    pub canary: String,
    /// What has been acknowledged: values of Secrets in the default namespace, by name.
    pub secrets: RefCell<BTreeMap<String, String>>,
    /// kleidi's image.
    pub image: String,
    directory: PathBuf,
    watch: Stopwatch,
    /// Whether it is to be there afterwards.
    keep: bool,
    /// Whether everything went well with it.
    well: RefCell<bool>,
}

/// Images that a cluster is made of.
#[derive(Debug, Clone)]
pub struct Images {
    /// Of its nodes.
    pub node: String,
    /// Kubernetes' minor version in it.
    pub minor: u32,
    /// kleidi's.
    pub kleidi: String,
    /// Of a broken plugin in its place.
    pub broken: Option<(Broken, String)>,
}

impl Cluster {
    /// Makes one, and waits until it is ready and its KMS in order.
    pub fn create(
        name: &str,
        plan: Plan,
        images: &Images,
        watch: Stopwatch,
        keep: bool,
    ) -> Result<Self, String> {
        let name = format!("{PREFIX}{name}");
        if images.broken.is_some() && plan.install != Install::StaticPod {
            return Err("a broken plugin takes the place of a static pod only".to_owned());
        }
        if all()?.contains(&name) {
            return Err(format!(
                "the cluster {name} is there from before: remove it by `cargo kind down {name}`"
            ));
        }
        let directory = directory(&name);
        let _ = fs::remove_dir_all(&directory);
        let seed = directory.join("seed");
        fs::create_dir_all(&seed).map_err(|error| format!("{}: {error}", seed.display()))?;
        guard::watch(&name);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let mut cluster = Self {
            plan,
            nodes: Vec::new(),
            openbao: None,
            canary: format!("canary-{:016x}", u64::from_be_bytes(random)),
            secrets: RefCell::default(),
            image: images.kleidi.clone(),
            directory,
            watch,
            keep,
            well: RefCell::new(false),
            name,
        };
        cluster.build(&seed, images)?;
        Ok(cluster)
    }

    fn build(&mut self, seed: &Path, images: &Images) -> Result<(), String> {
        if self.plan.kms == Kms::OpenBao {
            self.step("an OpenBao on its network");
            self.openbao = Some(OpenBao::start(&self.name, &tools::image("openbao", &[])?)?);
        }
        let broken = images.broken.as_ref().map(|(broken, image)| (*broken, image.as_str()));
        seed::make(seed, self, &images.kleidi, broken)?;
        let config = kind_configuration(&self.plan, &seed.display().to_string(), images.minor);
        let config_file = self.file("kind.json");
        fs::write(&config_file, config.to_string())
            .map_err(|error| format!("{config_file}: {error}"))?;
        let count = self.plan.control_planes;
        if count > 1 {
            balancer::lend_name()?;
        }
        self.step(&format!("a cluster of {count} on kind, key in {}", self.plan.kms.name()));
        let begun = Stopwatch::start();
        let kubeconfig = self.file("kubeconfig");
        let args = [
            "create",
            "cluster",
            "--name",
            &self.name,
            "--image",
            &images.node,
            "--config",
            &config_file,
            "--kubeconfig",
            &kubeconfig,
            "--wait",
            "300s",
            "--retain",
        ];
        let created = command::run(&tools::kind()?, &args);
        self.nodes = nodes(&self.name)?;
        created.and_then(|_| self.wait_healthy()).map_err(|error| self.with_health(&error))?;
        self.step(&format!("it is up, after {} s", begun.elapsed().as_secs()));
        Ok(())
    }

    /// An error, with what the first kube-apiserver has to say of its KMS.
    fn with_health(&self, error: &str) -> String {
        match self.api().and_then(|api| api.kms_health()) {
            Ok(()) => error.to_owned(),
            Err(health) => format!("{error}; kube-apiserver's check of its KMS: {health}"),
        }
    }

    /// Says what happens now.
    pub fn step(&self, what: &str) {
        progress::step(self.watch, &self.name, what);
    }

    /// Its first node.
    pub fn node(&self) -> Result<&Node, String> {
        self.nodes.first().ok_or_else(|| format!("{} has no nodes", self.name))
    }

    /// The kube-apiserver of the first node.
    pub fn api(&self) -> Result<Api, String> {
        self.node()?.api()
    }

    /// Waits until all kube-apiservers serve and find the KMS in order.
    pub fn wait_healthy(&self) -> Result<(), String> {
        self.nodes.iter().try_for_each(|node| node.wait_healthy().map(|_| ()))
    }

    /// Ends all kube-apiservers: those that come have nothing in memory.
    pub fn restart_apiservers(&self) -> Result<(), String> {
        self.nodes.iter().try_for_each(|node| node.restart_apiserver().map(|_| ()))
    }

    /// The key_id that all nodes have to agree on.
    pub fn key_id(&self) -> Result<String, String> {
        let first = self.node()?.key_id()?;
        for node in &self.nodes {
            let key_id = node.key_id()?;
            if key_id != first {
                return Err(format!("{} has key_id {key_id}, another has {first}", node.name));
            }
        }
        Ok(first)
    }

    /// The value that the Secret `name` of this cluster gets.
    #[must_use]
    pub fn value(&self, name: &str) -> String {
        format!("{}-{name}", self.canary)
    }

    /// Creates `<series>-0` and so on, through each kube-apiserver in turn.
    pub fn create_secrets(&self, series: &str, count: usize) -> Result<(), String> {
        let apis = self.nodes.iter().map(Node::api).collect::<Result<Vec<_>, _>>()?;
        self.create_secrets_through(&apis, series, count)
    }

    /// The same, through these.
    pub fn create_secrets_through(
        &self,
        apis: &[Api],
        series: &str,
        count: usize,
    ) -> Result<(), String> {
        for (number, api) in (0..count).zip(apis.iter().cycle()) {
            let name = format!("{series}-{number}");
            let value = self.value(&name);
            api.create_secret(&name, &value).map_err(|error| format!("Secret {name}: {error}"))?;
            self.secrets.borrow_mut().insert(name, value);
        }
        Ok(())
    }

    /// Gives a Secret its value, whether it is there or not, and remembers it.
    pub fn write_secret(&self, api: &Api, name: &str) -> Result<(), String> {
        let value = self.value(name);
        api.write_secret(name, &value)?;
        self.secrets.borrow_mut().insert(name.to_owned(), value);
        Ok(())
    }

    /// Changes the EncryptionConfiguration on all nodes; kube-apiserver looks at it each minute.
    pub fn configure_encryption(&self, text: &str) -> Result<(), String> {
        let file = "/etc/kubernetes/kleidi/encryption.yaml";
        self.nodes.iter().try_for_each(|node| node.write(file, text))
    }

    /// The manual's command that writes every Secret anew.
    pub fn rewrite_secrets(&self) -> Result<(), String> {
        let command = "export KUBECONFIG=/etc/kubernetes/admin.conf; \
                       kubectl get secrets --all-namespaces -o json | kubectl replace -f -";
        // Somebody else may have written one meanwhile; the manual has it repeated, too.
        let node = self.node()?;
        node.sh(command).or_else(|_| node.sh(command)).map(|_| ())
    }

    /// Runs kleidi in its image on the first node, as root, with the node's configuration and token.
    pub fn in_plugins_image(&self, arguments: &str) -> Result<String, String> {
        // containerd has no short names.
        let library = if self.image.contains('/') { "" } else { "docker.io/library/" };
        self.node()?.sh(&format!(
            "ctr --namespace k8s.io run --rm --user 0 \
             --mount type=bind,src=/etc/kleidi,dst=/etc/kleidi,options=rbind:ro \
             --mount type=bind,src=/var/lib/kleidi,dst=/var/lib/kleidi,options=rbind:rw \
             {library}{} by-hand kleidi {arguments}",
            self.image
        ))
    }

    /// The path of one of its files on this machine.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Says that nothing of it is needed any more.
    pub fn finish(self) {
        self.well.replace(true);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !*self.well.borrow() {
            let at = self.directory.join("evidence");
            evidence::collect(&self.name, &at);
            self.step(&format!("what was found is in {}", at.display()));
        }
        if self.keep {
            guard::release(&self.name);
            let kubeconfig = self.file("kubeconfig");
            self.step(&format!(
                "stays. KUBECONFIG={kubeconfig}; remove it by `cargo kind down {}`",
                self.name
            ));
        } else {
            self.step("is removed");
            match remove(&self.name) {
                Ok(()) => guard::release(&self.name),
                // The guard tries once more.
                Err(error) => progress::complain(&error),
            }
        }
    }
}

/// Where a cluster's files are on this machine.
#[must_use]
pub fn directory(name: &str) -> PathBuf {
    tools::root().join("target/kind").join(name)
}

/// Our clusters on this machine.
pub fn all() -> Result<Vec<String>, String> {
    let format = "{{.Label \"io.x-k8s.kind.cluster\"}} {{.Label \"dev.beezy.kleidi.cluster\"}}";
    let names = command::text("docker", &["ps", "--all", "--format", format])?;
    let mut names: Vec<_> = names
        .split_whitespace()
        .filter(|name| name.starts_with(PREFIX))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Ours, and those of which nothing is left but the folder with the PIN and the token.
pub fn all_and_left() -> Result<Vec<String>, String> {
    let mut names = all()?;
    for entry in fs::read_dir(directory("")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join("seed").exists() && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The nodes of a cluster, in kind's order.
pub fn nodes(name: &str) -> Result<Vec<Node>, String> {
    let filter = format!("label=io.x-k8s.kind.cluster={name}");
    let role = "label=io.x-k8s.kind.role=control-plane";
    let args = ["ps", "--all", "--filter", &filter, "--filter", role, "--format", "{{.Names}}"];
    let mut names: Vec<_> = command::text("docker", &args)?
        .lines()
        .map(|name| Node { name: name.to_owned() })
        .collect();
    names.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(names)
}

/// Removes a cluster with everything that belongs to it, but for evidence: all that can be removed, also if something
/// cannot.
pub fn remove(name: &str) -> Result<(), String> {
    let others = remove_others(name);
    let kubeconfig = directory(name).join("kubeconfig").display().to_string();
    let args = ["delete", "cluster", "--name", name, "--kubeconfig", &kubeconfig];
    let nodes = tools::kind().and_then(|kind| command::run(&kind, &args));
    balancer::give_name_back();
    // With it go the PIN and the token.
    let seed = directory(name).join("seed");
    let seed = match fs::remove_dir_all(&seed) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", seed.display()))
        }
        _ => Ok(()),
    };
    others.and(nodes.map(|_| ())).and(seed)
}

/// Its containers that kind knows nothing of.
fn remove_others(name: &str) -> Result<(), String> {
    let filter = format!("label={}={name}", openbao::LABEL);
    let others = command::text("docker", &["ps", "--all", "--quiet", "--filter", &filter])?;
    let removed = others.lines().map(|other| {
        // One that is paused cannot be removed.
        let _ = command::run("docker", &["unpause", other]);
        command::run("docker", &["rm", "--force", "--volumes", other]).map(|_| ())
    });
    removed.fold(Ok(()), Result::and)
}

/// The manual's manifest, or the DaemonSet, as kubectl takes it.
pub fn apply(node: &Node, manifest: &Value) -> Result<(), String> {
    let script = "KUBECONFIG=/etc/kubernetes/admin.conf kubectl apply -f -";
    node.bytes(script, manifest.to_string().as_bytes()).map(|_| ())
}
