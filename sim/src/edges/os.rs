//! The operating system's sockets, time and random bytes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::UnixStream;

use super::{Clock, Dial, Dialing, Edges, Random, Stream, Watch};
use crate::time::Time;

struct Os;

impl Dial for Os {
    fn dial(&self, address: &[u8]) -> Dialing {
        use std::os::unix::ffi::OsStrExt as _;
        let address = match address {
            [] => Err(io::Error::new(io::ErrorKind::InvalidInput, "missing address")),
            // tokio takes a path that begins with a zero byte for an abstract name.
            [b'@', name @ ..] => Ok([&[0], name].concat()),
            path => Ok(path.to_vec()),
        };
        Box::pin(async move {
            let address = address?;
            let stream = UnixStream::connect(std::ffi::OsStr::from_bytes(&address)).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

impl Random for Os {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))
    }
}

impl Edges {
    /// Those of the operating system.
    #[must_use]
    pub fn os(watch: Option<Arc<dyn Watch>>) -> Self {
        Self { dial: Arc::new(Os), clock: Clock::at(now()), random: Arc::new(Os), watch }
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place where a clock is set")]
fn now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}
