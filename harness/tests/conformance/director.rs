//! Does what hooks ask for: their commands are shells that send a word to this test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use kleidi_harness::{Plugin, Process};

use crate::kms::Kms;

/// The plugins of two nodes; hooks stop and start the first.
pub struct Nodes {
    plugins: [Plugin; 2],
}

impl Nodes {
    /// Running ones.
    pub fn new(plugins: [Plugin; 2]) -> Self {
        Self { plugins }
    }

    /// Their sockets, as URLs.
    pub fn endpoints(&self) -> Vec<String> {
        self.plugins.iter().map(|plugin| format!("unix://{}", plugin.socket().display())).collect()
    }

    fn first(&mut self) -> &mut Process {
        &mut self.plugins[0].process
    }

    /// Starts the first; does not wait.
    fn start(&mut self) {
        let process = self.plugins[0].config().spawn("a");
        *self.first() = process;
    }
}

/// Listens for hooks.
pub struct Director {
    listener: TcpListener,
}

impl Director {
    /// On a free port.
    pub fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        Self { listener }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// The command of a hook that asks for `word`, and ends when it has been done.
    pub fn command(&self, word: &str) -> String {
        let port = self.port();
        format!(
            "exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && echo {word} >&3 && read -r done <&3 && [[ $done == done ]]'"
        )
    }

    /// Does what is asked for until it is told to [`Self::end`].
    pub fn serve(&self, mut nodes: Nodes, mut kms: impl Kms) {
        loop {
            let (mut stream, _) = self.listener.accept().expect("a hook");
            let mut word = String::new();
            BufReader::new(&stream).read_line(&mut word).expect("a word");
            let done = match word.trim() {
                "rotate" => {
                    kms.rotate();
                    true
                }
                "rotate-back" => kms.rotate_back(),
                "backend-down" => {
                    kms.down();
                    true
                }
                "backend-up" => {
                    kms.up();
                    true
                }
                "deny-decrypt" => {
                    kms.allow_decrypt(false);
                    true
                }
                "allow-decrypt" => {
                    kms.allow_decrypt(true);
                    true
                }
                "stop" => nodes.first().terminate() == 0,
                "kill" => nodes.first().kill() == 128 + 9,
                "start" => {
                    nodes.start();
                    true
                }
                "end" => return,
                other => panic!("a hook asks for {other:?}"),
            };
            // A hook that was given up has its own error.
            let _ = writeln!(stream, "{}", if done { "done" } else { "failed" });
        }
    }

    /// Ends [`Self::serve`].
    pub fn end(&self) {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port()));
        let _ = stream.and_then(|mut stream| writeln!(stream, "end"));
    }
}
