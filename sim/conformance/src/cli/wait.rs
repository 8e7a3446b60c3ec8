//! Waits for plugins that are about to listen.

use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::endpoint::Endpoint;
use crate::interruption::Interruption;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until all of them accept connections, for `limit` at most, or until the run is over. Who does not
/// listen then is for the run to say.
pub(super) async fn until_listening(
    endpoints: &[Endpoint],
    limit: Duration,
    mut end: Interruption,
) {
    let listening = async {
        for endpoint in endpoints {
            while UnixStream::connect(endpoint.address()).await.is_err() {
                sleep(PAUSE).await;
            }
        }
    };
    tokio::select! {
        _ = timeout(limit, listening) => {}
        _ = end.reached() => {}
    }
}
