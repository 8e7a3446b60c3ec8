//! The whole way of one Secret, on real parts, told step by step. `demo [--keep]`; run by `ci/demo`.

#![allow(clippy::print_stdout, reason = "telling is what it does")]
#![allow(clippy::expect_used, clippy::panic, reason = "without its parts there is nothing to tell")]

use kleidi_harness::{ApiServer, Etcd, Plugin, SoftHsm, Stage, components, within};

mod anatomy;

/// Name of the KMS provider in the EncryptionConfiguration.
const PROVIDER: &str = "kleidi";

const SECRET: &str = "demo";
const VALUE: &str = "correct horse battery staple";

fn main() {
    let keep = std::env::args().nth(1).as_deref() == Some("--keep");
    let stage = Stage::new("the demo");
    let version = components::KUBE_APISERVERS[components::KUBE_APISERVERS.len() - 1];

    step("A token in SoftHSM and a key on it: kleidi init");
    let token = SoftHsm::empty(&stage, "softhsm").expect("SoftHSM");
    let config = Plugin::new(&stage, "plugin", &token).log_level(None);
    let init = config.run(&["init"]);
    for line in String::from_utf8_lossy(&init.stdout).lines() {
        println!("  {line}");
    }
    assert!(init.status.success(), "kleidi init: {}", String::from_utf8_lossy(&init.stderr));

    step("The plugin: kleidi serve");
    let plugin = config.start();
    let key_id = plugin.key_id();
    println!("  listens on unix://{}", plugin.socket().display());
    println!("  Status: ok, v2, key_id {key_id}");

    step(&format!("etcd {} and kube-apiserver {version}", components::ETCD));
    let etcd = Etcd::start(&stage).expect("etcd");
    let apiserver = ApiServer::new(&stage, "apiserver", version, &etcd).expect("kube-apiserver");
    let apiserver = apiserver.encrypt_with(PROVIDER, &plugin.socket()).start();
    let patience = std::time::Duration::from_secs(60);
    within(patience, "the KMS provider to be healthy", || apiserver.kms_health());
    println!(
        "  {} with --encryption-provider-config; /healthz/kms-providers: ok",
        apiserver.config().url()
    );

    step(&format!("A Secret: default/{SECRET}, value {VALUE:?}"));
    apiserver.create_secret(SECRET, VALUE);
    println!("  created through the API");

    let key = format!("/registry/secrets/default/{SECRET}");
    let raw = etcd.get(&key).expect("the Secret is in etcd");
    step(&format!("What etcd holds: {key}, {} bytes", raw.len()));
    println!("  {}…\n", printable(&raw[..raw.len().min(48)]));
    print!("{}", anatomy::explain(&raw, &key_id));
    let readable = raw.windows(VALUE.len()).any(|window| window == VALUE.as_bytes());
    assert!(!readable, "the Secret is in etcd in clear");
    println!("\n  The Secret's value is not in it.");

    step("Read back through the API");
    let read = apiserver.read_secret(SECRET).expect("the Secret can be read");
    assert_eq!(read, VALUE, "what was read is not what was written");
    println!("  default/{SECRET} = {read:?}");

    if keep {
        keep_running(stage, &token, plugin, etcd, apiserver);
    } else {
        println!("\nThat was all. ci/demo --keep leaves it running.");
    }
}

fn step(title: &str) {
    println!("\n\u{1b}[1m{title}\u{1b}[0m");
}

fn printable(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    };
    bytes.iter().map(shown).collect()
}

fn keep_running(stage: Stage, token: &SoftHsm, plugin: Plugin, etcd: Etcd, apiserver: ApiServer) {
    let pids = [&plugin.process, &etcd.process, &apiserver.process]
        .map(|process| process.pid().to_string());
    let directory = stage.path("");
    let api = apiserver.config();
    let kleidi = kleidi_harness::built::plugin();
    step("It goes on running. To talk to it:");
    println!(
        "  curl --cacert {ca} -H 'Authorization: Bearer {bearer}' {url}/api/v1/namespaces/default/secrets/{SECRET}
  kubectl --server {url} --certificate-authority {ca} --token {bearer} get secret {SECRET} -o yaml
  {etcdctl} --endpoints {etcd_url} get /registry/secrets/default/{SECRET} | head -c 60
  {kleidi} status --socket {socket}
  SOFTHSM2_CONF={conf} {kleidi} check --live -c {config}
  SOFTHSM2_CONF={conf} {kleidi} init --cka-id 02 -c {config}      # a second key: rotation

Logs: {logs}*.log
To end it: kill -KILL {pids} && rm -r {directory}",
        ca = api.certificate().display(),
        bearer = api.bearer_token(),
        url = api.url(),
        etcdctl = etcd.etcdctl().display(),
        etcd_url = etcd.url(),
        kleidi = kleidi.display(),
        socket = plugin.socket().display(),
        conf = token.configuration().display(),
        config = plugin.config().file().display(),
        logs = directory.display(),
        pids = pids.join(" "),
        directory = directory.display(),
    );
    plugin.process.leave_running();
    etcd.process.leave_running();
    apiserver.process.leave_running();
    stage.keep();
}
