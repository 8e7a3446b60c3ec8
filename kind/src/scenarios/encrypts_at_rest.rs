//! From the first write of a cluster on, a Secret is in etcd only as kleidi has it wrapped.
//!
//! Twice: kleidi is a static pod, and the key is on a SoftHSM token, then in an OpenBao on the cluster's network. The
//! plugin's pod and kube-apiserver start together, as they do on any node.

use crate::plan::{Kms, Plan};
use crate::scenario::{Scenario, Stage};

pub const SCENARIO: Scenario = Scenario {
    name: "encrypts-at-rest",
    shows: "Secrets are in etcd encrypted, under kleidi's key, and nowhere else; with SoftHSM and with OpenBao",
    minutes: 3,
    run,
};

fn run(stage: &Stage) -> Result<(), String> {
    for kms in [Kms::SoftHsm, Kms::OpenBao] {
        let cluster = stage.cluster(Plan::new(kms))?;
        let key_id = cluster.key_id()?;
        cluster.step("20 Secrets are written");
        cluster.create_secrets("secret", 20)?;
        let shown = cluster.encrypted_at_rest(&[&key_id])?;
        cluster.node()?.nothing_pulled()?;
        stage.shown(format!("{}: {shown}; no image pulled", kms.name()));
        cluster.finish();
    }
    Ok(())
}
