//! The model's gRPC client where no recording of a real one goes.

use std::sync::Arc;
use std::time::Duration;

use kleidi_proto::kms::DecryptRequest;
use kleidi_sim::client::{Channel, Target};
use kleidi_sim::edges::Edges;
use kleidi_sim::version::Version;
use tonic::metadata::MetadataMap;

use crate::plugin::Plugin;
use crate::recording::Recording;
use crate::replay::{edges, paused};
use crate::script::{Does, STEADY, Script};

/// As long as a path may be, and with what has to be escaped; longer than 127 bytes then.
const LONG: &str = "/p/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb/c/d/e/f/g/h/k.sock";

fn channel(edges: Edges, version: Version) -> Channel {
    let (name, address) = ("kms".to_owned(), LONG.as_bytes().to_vec());
    Channel::new(edges, Target { name, address, timeout: Duration::from_secs(3), version })
}

async fn recorded(plugin: &Plugin, seconds: u64) -> Recording {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    plugin.recording("", "", "", seconds)
}

/// The server's table of headers forgets what was in it, and the client sends it again.
#[test]
fn the_authority_stays_the_same_for_the_life_of_a_connection() {
    for version in Version::ALL {
        let recording = paused(async {
            let plugin = Plugin::new(STEADY, LONG);
            let channel = channel(edges(&plugin), version);
            channel.status().await.unwrap();
            for number in 0..100 {
                let mut metadata = MetadataMap::new();
                let filling = format!("{number:0200}").parse().unwrap();
                metadata.insert("filling", filling);
                let ciphertext = [&b"wrapped:"[..], &[7; 32]].concat();
                let request = DecryptRequest { ciphertext, ..DecryptRequest::default() };
                let answer = channel.decrypt(request, &metadata).await.unwrap();
                assert_eq!(answer.plaintext, vec![7; 32]);
            }
            recorded(&plugin, 60).await
        });
        let [connection] = &recording.connections[..] else { panic!("one connection") };
        assert_eq!(connection.calls.len(), 101);
        let wanted = if version == Version::V1_37 { "localhost" } else { "<socket>" };
        for call in &connection.calls {
            assert_eq!(call.authority, wanted, "{version}");
        }
    }
}

/// Several calls at a time have one connection made, and it ends with the channel.
#[test]
fn calls_share_a_connection() {
    let recording = paused(async {
        let plugin = Plugin::new(STEADY, LONG);
        let channel = Arc::new(channel(edges(&plugin), Version::V1_31));
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let channel = Arc::clone(&channel);
                tokio::spawn(async move { channel.status().await })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        drop(channel);
        recorded(&plugin, 10).await
    });
    let [connection] = &recording.connections[..] else { panic!("{recording:?}") };
    assert_eq!(connection.calls.len(), 20);
    assert!(connection.ended.is_some(), "it ends with the channel");
}

/// An answer of the plugin's comes through; so does the end of a call's time.
#[test]
fn errors_are_grpc_gos() {
    const SCRIPT: Script = Script(&[(0, Does::Fails), (1_000, Does::Hangs)]);
    let (failed, late) = paused(async {
        let plugin = Plugin::new(SCRIPT, LONG);
        let channel = channel(edges(&plugin), Version::V1_37);
        let failed = channel.status().await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(2)).await;
        (failed, channel.status().await.unwrap_err())
    });
    assert_eq!(kleidi_sim::client::text(&failed), "rpc error: code = Unavailable desc = down");
    let late = kleidi_sim::client::text(&late);
    assert_eq!(late, "rpc error: code = DeadlineExceeded desc = context deadline exceeded");
}
