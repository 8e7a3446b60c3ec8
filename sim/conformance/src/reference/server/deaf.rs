//! Takes what a server says to PINGs out of a connection.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::raw::{END_OR_ACK, kind};

/// The connection to serve in the place of a client's: whatever is said on it is passed on, but no
/// acknowledgement of a PING. Either ends with the other.
pub(super) fn to_pings(client: UnixStream) -> io::Result<UnixStream> {
    let (served, ours) = UnixStream::pair()?;
    tokio::spawn(async move {
        let (mut from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = ours.into_split();
        tokio::select! {
            _ = copy(&mut from_client, &mut to_server) => {}
            _ = without_acknowledgements(from_server, to_client) => {}
        }
    });
    Ok(served)
}

/// Passes frames on until one side has ended; a server has no preface.
async fn without_acknowledgements(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) -> io::Result<()> {
    loop {
        let mut frame = vec![0; 9];
        from.read_exact(&mut frame).await?;
        let length = frame[..3].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        frame.resize(9 + length, 0);
        from.read_exact(&mut frame[9..]).await?;
        // Those that the server sends itself have to be answered, or it does not stop in order.
        if frame[3] != kind::PING || frame[4] & END_OR_ACK == 0 {
            to.write_all(&frame).await?;
        }
    }
}
