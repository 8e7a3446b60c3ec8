//! A load balancer for TCP, as an operator may have one in front of a cluster.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, park_timeout};
use std::time::Duration;

/// Sends each new connection to one port of this machine; those that are open stay where they are.
#[derive(Debug)]
pub struct Balancer {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: AtomicU16,
    /// How much later each piece of a request arrives, in milliseconds.
    delay: AtomicU64,
    connections: AtomicUsize,
    stop: AtomicBool,
}

impl Balancer {
    /// Starts one that sends connections to `target`.
    ///
    /// # Panics
    ///
    /// If there is no port for it.
    #[must_use]
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            delay: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self { port, shared, accepting: Some(accepting) }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends new connections to another port from now on.
    pub fn direct_to(&self, target: u16) {
        self.shared.target.store(target, Ordering::SeqCst);
    }

    /// The line becomes slow: from now on each piece of a request arrives that much later, in milliseconds.
    pub fn delay(&self, millis: u64) {
        self.shared.delay.store(millis, Ordering::SeqCst);
    }

    /// How many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let target = shared.target.load(Ordering::SeqCst);
        // What cannot be connected is closed.
        if let Ok(client) = client
            && let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target))
        {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            let slow = Arc::clone(shared);
            let delay = move || Duration::from_millis(slow.delay.load(Ordering::SeqCst));
            let _ = forward(&client, &server, delay)
                .and_then(|()| forward(&server, &client, || Duration::ZERO));
        }
    }
}

/// Copies until one side has no more to say, each piece with that delay.
fn forward(
    from: &TcpStream,
    to: &TcpStream,
    delay: impl Fn() -> Duration + Send + 'static,
) -> io::Result<()> {
    from.set_nodelay(true)?;
    let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
    std::thread::spawn(move || {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(bytes @ 1..) = from.read(&mut piece) {
            let delay = delay();
            if !delay.is_zero() {
                park_timeout(delay);
            }
            if to.write_all(&piece[..bytes]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    Ok(())
}
