//! Bytes that somebody sends instead of HTTP/2.

use std::time::Duration;

use kleidi_proto::kms::StatusRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::stage::{Stage, run};

/// Whatever comes on a connection, it ends when the sender does, and other connections do not notice.
pub fn http2_bytes(bytes: &[u8]) {
    run(async {
        let stage = Stage::new();
        let mut other = stage.client().await;
        let before = other.status(StatusRequest {}).await.unwrap().into_inner();
        let mut raw = stage.raw().await;
        // The server may have heard enough before all of it is written.
        let _ = timeout(Duration::from_secs(60), raw.write_all(bytes)).await.unwrap();
        let during = other.status(StatusRequest {}).await.unwrap().into_inner();
        let _ = timeout(Duration::from_secs(60), raw.shutdown()).await.unwrap();
        let mut said = Vec::new();
        let ended = timeout(Duration::from_secs(60), raw.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "the connection stays open");
        let after = other.status(StatusRequest {}).await.unwrap().into_inner();
        assert!(before == during && during == after);
        stage.client().await.status(StatusRequest {}).await.unwrap();
    });
}
