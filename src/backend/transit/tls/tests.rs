//! Files that change under a running client.

use std::fs;
use std::io::Write;

use kleidi_harness::{Authority, CertificateFiles, Stage};

use tracing::instrument::WithSubscriber as _;

use super::*;

/// What is logged meanwhile.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

async fn http(connections: &Connections) -> Result<Arc<Http>, BackendError> {
    connections.http(Instant::now() + Duration::from_secs(10)).await
}

/// Looks at the files: whether the client is another one afterwards, and what was logged.
async fn follow(connections: &Connections) -> (bool, Vec<String>) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let before = http(connections).await.unwrap();
    connections.follow_files().with_subscriber(subscriber).await;
    (!Arc::ptr_eq(&before, &http(connections).await.unwrap()), log.lines())
}

struct World {
    stage: Stage,
    authority: Authority,
    client: CertificateFiles,
    connections: Connections,
}

impl World {
    fn new(name: &str) -> Self {
        let stage = Stage::new(name);
        let authority = Authority::new(&stage, "authority");
        let client = authority.issue("client");
        let tls = Tls {
            ca_file: Some(authority.file()),
            certificate_file: Some(client.certificate.clone()),
            key_file: Some(client.key.clone()),
            server_name: Some("vault.example".to_owned()),
        };
        Self { stage, authority, client, connections: Connections::new(tls, Files::default()) }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_when_its_key_is_there_too() {
    let world = World::new("renewed");
    assert_eq!(follow(&world.connections).await, (false, vec![]));
    let renewed = world.authority.issue("renewed");
    fs::copy(&renewed.certificate, &world.client.certificate).unwrap();
    let (other, said) = follow(&world.connections).await;
    assert!(!other && said.len() == 1, "{said:?}");
    assert!(said[0].contains("WARN") && said[0].contains("client.crt"), "{said:?}");
    assert_eq!(follow(&world.connections).await, (false, vec![]), "said once");
    fs::copy(&renewed.key, &world.client.key).unwrap();
    let (other, said) = follow(&world.connections).await;
    assert!(other && said.len() == 1 && said[0].contains("INFO"), "{said:?}");
    assert_eq!(follow(&world.connections).await, (false, vec![]));
}

#[tokio::test]
async fn half_a_file_changes_nothing() {
    let world = World::new("half");
    let authority = world.authority.file();
    let whole = fs::read(&authority).unwrap();
    assert_eq!(follow(&world.connections).await, (false, vec![]));
    for broken in [&whole[..whole.len() / 2], b""] {
        fs::write(&authority, broken).unwrap();
        let (other, said) = follow(&world.connections).await;
        assert!(!other && said.len() == 1, "{said:?}");
        assert!(said[0].contains("ca.crt"), "{said:?}");
    }
    fs::remove_file(&authority).unwrap();
    let (other, said) = follow(&world.connections).await;
    assert!(!other && said[0].contains("No such file"), "{said:?}");
    fs::write(&authority, &whole).unwrap();
    assert_eq!(follow(&world.connections).await, (false, vec![]), "as it was");
    let next = Authority::new(&world.stage, "next");
    fs::write(&authority, [whole, fs::read(next.file()).unwrap()].concat()).unwrap();
    assert!(follow(&world.connections).await.0, "and one more");
}

/// The kubelet's file is a link that is exchanged, with certificate and key in one.
#[tokio::test]
async fn a_link_is_followed() {
    let world = World::new("link");
    let both = |name: &str| {
        let files = world.authority.issue(name);
        let content = [fs::read(files.certificate).unwrap(), fs::read(files.key).unwrap()];
        let path = world.stage.path(&format!("{name}.pem"));
        kleidi_harness::write_private(&path, content.concat());
        path
    };
    let (link, next) = (world.stage.path("current.pem"), world.stage.path("next.pem"));
    std::os::unix::fs::symlink(both("one"), &link).unwrap();
    let tls = Tls { certificate_file: Some(link.clone()), ..Tls::default() };
    let connections = Connections::new(tls, Files::default());
    assert_eq!(follow(&connections).await, (false, vec![]));
    std::os::unix::fs::symlink(both("two"), &next).unwrap();
    fs::rename(&next, &link).unwrap();
    assert!(follow(&connections).await.0);
}

#[tokio::test]
async fn what_is_wrong_at_the_beginning_is_the_calls_error_until_it_is_mended() {
    let world = World::new("beginning");
    let key = fs::read(&world.client.key).unwrap();
    fs::write(&world.client.key, "canary").unwrap();
    let said = http(&world.connections).await.err().unwrap();
    assert_eq!(said.kind, ErrorKind::Misconfigured);
    let text = said.to_string();
    assert!(text.contains("client.key") && !text.contains("canary"), "{text}");
    world.connections.follow_files().await;
    fs::write(&world.client.key, key).unwrap();
    assert!(http(&world.connections).await.is_ok());
}
