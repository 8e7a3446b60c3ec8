//! TCP ports for servers that cannot say which one they took.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::{env, io};

use nix::unistd::geteuid;

/// Below those that the kernel gives to whoever asks for any port or connects to another (from 32768 on, see
/// `ip_local_port_range` in ip(7)): it gives none of these away before the server has come up.
const PORTS: Range<u16> = 12_000..32_000;

/// A TCP port of 127.0.0.1 that is free, as is the one after it, which OpenBao and Vault take for their cluster
/// unasked; no other test of this user gets either for the next 10,000 calls.
///
/// Which port is next is in a file that all test programs share, as several of them run at a time.
///
/// # Panics
///
/// If there is none, or the file cannot be used.
#[must_use]
#[allow(clippy::panic, reason = "without a port there is no test")]
pub fn free_port() -> u16 {
    let path = env::temp_dir().join(format!("kleidi-next-port.{}", geteuid()));
    let mut file =
        match File::options().read(true).write(true).create(true).truncate(false).open(&path) {
            Ok(file) => file,
            Err(error) => panic!("open {}: {error}", path.display()),
        };
    match next(&mut file) {
        Ok(port) => port,
        Err(error) => panic!("take a port by {}: {error}", path.display()),
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The next one that is free. Closing the file unlocks it.
fn next(file: &mut File) -> io::Result<u16> {
    file.lock()?;
    let mut last = String::new();
    file.read_to_string(&mut last)?;
    let last =
        last.trim().parse().ok().filter(|port| PORTS.contains(port)).unwrap_or(PORTS.start) & !1;
    let free = (last + 2..PORTS.end)
        .chain(PORTS.start..=last)
        .step_by(2)
        .find(|port| is_free(*port) && is_free(port + 1))
        .ok_or_else(|| io::Error::other("none is free"))?;
    file.rewind()?;
    file.set_len(0)?;
    write!(file, "{free}")?;
    Ok(free)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use super::*;
    use crate::Stage;

    #[test]
    fn no_two_get_the_same() {
        let callers: Vec<_> = (0..8)
            .map(|_| thread::spawn(|| (0..50).map(|_| free_port()).collect::<Vec<_>>()))
            .collect();
        let ports: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        let with_the_next: BTreeSet<_> = ports.iter().flat_map(|port| [*port, port + 1]).collect();
        assert_eq!(with_the_next.len(), 2 * ports.len());
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
    }

    #[test]
    fn one_that_is_taken_is_passed_over_and_the_last_is_followed_by_the_first() {
        let stage = Stage::new("ports");
        let path = stage.path("next");
        let after = |last: u16| {
            std::fs::write(&path, last.to_string()).unwrap();
            next(&mut File::options().read(true).write(true).open(&path).unwrap()).unwrap()
        };
        let taken = loop {
            let port = free_port();
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                break listener;
            }
        };
        let taken = taken.local_addr().unwrap().port();
        assert!(after(taken - 2) > taken);
        assert!(after(PORTS.end - 2) < PORTS.start + 1000);
    }
}
