//! What a plugin saw of an apiserver, as a file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All connections of one plugin. Every time is in milliseconds since its first Status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Of which kube-apiserver.
    pub version: String,
    /// Which scenario.
    pub scenario: String,
    /// What the plugin and others did; for the reader.
    pub script: String,
    /// When it was over.
    pub until: i64,
    /// In the order in which they were made.
    pub connections: Vec<Connection>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// When it was accepted.
    pub at: i64,
    /// When it ended, by whom.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<(i64, By)>,
    /// What was called on it.
    pub calls: Vec<Call>,
}

/// Who ended something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// The apiserver.
    Apiserver,
    /// The plugin.
    Plugin,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// When its message was whole.
    pub at: i64,
    /// `Status`, `Encrypt`, `Decrypt`.
    pub method: String,
    /// `:authority`, with `<socket>` for the escaped path of the socket.
    pub authority: String,
    /// Of `grpc-timeout`, in milliseconds, rounded up.
    pub timeout: i64,
    /// Bytes of the message.
    pub bytes: usize,
    /// `none`, `uuid4` or another uid.
    pub uid: String,
    /// How many calls were under way with it, itself included.
    pub at_once: usize,
    /// Other headers, those of gRPC itself left out.
    pub metadata: Vec<String>,
    /// How it went on.
    pub outcome: Outcome,
}

/// How a call went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// It was answered with an error.
    Failed,
    /// Nothing came before the connection ended.
    Unanswered,
    /// The apiserver gave it up, this long after its beginning.
    GivenUp(i64),
}

impl Recording {
    /// Where it is kept.
    pub fn file(version: &str, scenario: &str) -> PathBuf {
        let sim = concat!(env!("CARGO_MANIFEST_DIR"), "/../sim/recordings");
        PathBuf::from(sim).join(version).join(format!("{scenario}.json"))
    }

    /// Reads one.
    pub fn load(version: &str, scenario: &str) -> Self {
        let file = Self::file(version, scenario);
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// Keeps it.
    pub fn save(&self) {
        let file = Self::file(&self.version, &self.scenario);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, self.text()).unwrap();
    }

    /// The file's text: one line for a call.
    fn text(&self) -> String {
        let head = Self { connections: Vec::new(), ..self.clone() };
        let head = line(&head);
        let head = head.strip_suffix("]}").unwrap().replacen("\"script", "\n\"script", 1);
        let head = head.replacen("\"until", "\n\"until", 1);
        let connections: Vec<_> = self.connections.iter().map(Connection::text).collect();
        format!("{head}\n{}\n]}}\n", connections.join(",\n"))
    }
}

impl Connection {
    fn text(&self) -> String {
        let head = line(&Self { calls: Vec::new(), ..self.clone() });
        let calls: Vec<_> = self.calls.iter().map(|call| format!("\n  {}", line(call))).collect();
        format!("{}{}]}}", head.strip_suffix("]}").unwrap(), calls.join(","))
    }
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}
