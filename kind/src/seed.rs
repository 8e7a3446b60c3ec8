//! The folder that each node of a cluster is prepared from: kleidi and its image, the token or the credentials,
//! the manifests.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::plan::{Broken, Install, Kms};
use crate::{command, openbao};

const STATIC_POD: &str = include_str!("../../configuration/static-pod.yaml");

/// A drop-in of the kubelet's unit. Its start includes the import of an image, and on some nodes a package's
/// installation: systemd would end it after 90 s.
const KUBELET: &str =
    "[Service]\nTimeoutStartSec=600\nExecStartPre=/bin/sh /kind/kleidi/prepare.sh";

/// Makes the folder for a cluster that is to be. With SoftHSM this is the key ceremony: one `kleidi init`, in the
/// plugin's own image, for all nodes.
pub fn make(
    seed: &Path,
    cluster: &Cluster,
    image: &str,
    broken: Option<(Broken, &str)>,
) -> Result<(), String> {
    let plan = &cluster.plan;
    let write = |name: &str, content: &str| {
        let path = seed.join(name);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
    };
    fs::create_dir_all(seed.join("etc")).map_err(|error| format!("{}: {error}", seed.display()))?;
    write("prepare.sh", include_str!("prepare.sh"))?;
    write("kubelet.conf", &format!("{KUBELET} {}\n", plan.install.name()))?;
    write("encryption.yaml", &plan.encryption)?;
    write("static-pod.yaml", &static_pod(plan.kms, image, broken)?.to_string())?;
    write("kleidi.service", include_str!("../../configuration/kleidi.service"))?;
    write("kleidi.socket", include_str!("../../configuration/kleidi.socket"))?;
    write("as-kleidi", include_str!("../../configuration/as-kleidi"))?;
    take_binary(seed, &cluster.name, image)?;
    if plan.install != Install::Systemd {
        let archive = seed.join("kleidi.tar").display().to_string();
        let mut images = vec!["save", "--output", &archive, image];
        images.extend(broken.map(|(_, image)| image));
        command::run("docker", &images)?;
    }
    match &cluster.openbao {
        None => {
            write("etc/softhsm2.conf", include_str!("../../configuration/softhsm2.conf"))?;
            write("etc/kleidi.yaml", &(PKCS11.to_owned() + &plan.more_configuration))?;
            private(&seed.join("etc"))?;
            make_token(seed, image)
        }
        Some(openbao) => {
            write("etc/kleidi.yaml", &(openbao.configuration() + &plan.more_configuration))?;
            let script = in_image(seed, image, &["init", "--print-policy"])?;
            let (role_id, secret_id) = openbao.provision(&script)?;
            write("etc/role-id", &role_id)?;
            write("etc/secret-id", &secret_id)?;
            private(&seed.join("etc"))
        }
    }
}

/// As in the manual.
const PKCS11: &str = "apiVersion: kleidi.beezy.dev/v1\nkind: PluginConfiguration\npkcs11:\n  \
    module: /usr/lib/softhsm/libsofthsm2.so\n  tokenLabel: kleidi\n  keyLabel: kek\n  pinFile: /etc/kleidi/pin\n";

/// The binary, for `kleidi status` on the node and for the service.
fn take_binary(seed: &Path, cluster: &str, image: &str) -> Result<(), String> {
    let label = format!("{}={cluster}", openbao::LABEL);
    let container = command::text("docker", &["create", "--label", &label, image])?;
    let to = seed.join("kleidi").display().to_string();
    let taken = command::run("docker", &["cp", &format!("{container}:/usr/local/bin/kleidi"), &to]);
    command::run("docker", &["rm", &container])?;
    taken.map(|_| ())
}

fn make_token(seed: &Path, image: &str) -> Result<(), String> {
    let tokens = seed.join("tokens");
    fs::create_dir_all(&tokens).map_err(|error| format!("{}: {error}", tokens.display()))?;
    private(&tokens)?;
    in_image(seed, image, &["init"])?;
    // It belongs into a safe, and not on a node.
    let so_pin = seed.join("etc/so-pin");
    fs::remove_file(&so_pin).map_err(|error| format!("{}: {error}", so_pin.display()))
}

/// Runs kleidi in its image with the configuration of the seed, as the user whose the seed is.
fn in_image(seed: &Path, image: &str, args: &[&str]) -> Result<String, String> {
    let owner = fs::metadata(seed).map_err(|error| format!("{}: {error}", seed.display()))?;
    let user = format!("{}:{}", owner.uid(), owner.gid());
    let etc = format!("{}:/etc/kleidi", seed.join("etc").display());
    let tokens = format!("{}:/var/lib/kleidi/tokens", seed.join("tokens").display());
    let mut all =
        vec!["run", "--rm", "--read-only", "--network", "none", "--user", &user, "--volume", &etc];
    if seed.join("tokens").exists() {
        all.extend(["--volume", &tokens]);
    }
    all.push(image);
    all.extend(args);
    command::text("docker", &all)
}

fn private(directory: &Path) -> Result<(), String> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    let text = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::set_permissions(directory, mode).map_err(text)?;
    for entry in fs::read_dir(directory).map_err(text)? {
        let path = entry.map_err(text)?.path();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(path, mode).map_err(text)?;
    }
    Ok(())
}

/// The manual's static pod with this image, or with a broken plugin in its place.
pub fn static_pod(kms: Kms, image: &str, broken: Option<(Broken, &str)>) -> Result<Value, String> {
    let mut pod: Value = serde_saphyr::from_str(STATIC_POD)
        .map_err(|error| format!("configuration/static-pod.yaml: {error}"))?;
    let container = &mut pod["spec"]["containers"][0];
    container["image"] = json!(image);
    if let Some((broken, image)) = broken {
        container["image"] = json!(image);
        container["args"] = broken.args();
        // It knows no `kleidi status`.
        container["readinessProbe"] = Value::Null;
    }
    if kms == Kms::OpenBao {
        // The manual: neither the tokens nor SoftHSM's log.
        container["env"] = json!([]);
        let not_needed = |mount: &Value| mount["name"] != "tokens" && mount["name"] != "log";
        keep(&mut container["volumeMounts"], not_needed);
        keep(&mut pod["spec"]["volumes"], not_needed);
    }
    Ok(pod)
}

fn keep(list: &mut Value, which: impl Fn(&Value) -> bool) {
    if let Some(list) = list.as_array_mut() {
        list.retain(which);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_static_pod_is_the_manuals_but_for_what_is_said() {
        let manual: Value = serde_saphyr::from_str(STATIC_POD).unwrap();
        assert_eq!(static_pod(Kms::SoftHsm, "kleidi:0.1.0", None).unwrap(), manual);
        let transit = static_pod(Kms::OpenBao, "kleidi:0.1.0", None).unwrap();
        let names = |list: &Value| {
            let names = list.as_array().unwrap().iter().map(|entry| entry["name"].clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(&transit["spec"]["volumes"]), ["run", "configuration"]);
        assert_eq!(
            names(&transit["spec"]["containers"][0]["volumeMounts"]),
            ["run", "configuration"]
        );
    }

    #[test]
    fn a_broken_plugin_takes_kleidis_place() {
        let broken = Some((Broken::OtherKeyId, "kleidi-broken:other-key-id"));
        let pod = static_pod(Kms::SoftHsm, "kleidi:0.1.0", broken).unwrap();
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["image"], "kleidi-broken:other-key-id");
        assert_eq!(container["args"][0], "reference");
        assert!(container["readinessProbe"].is_null());
    }
}
