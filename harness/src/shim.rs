//! Faults of a PKCS#11 module, by a script.

use std::fs;
use std::path::PathBuf;

use crate::{Stage, built};

/// The scripted module in front of the real one; see the package `kleidi-pkcs11-shim`.
#[derive(Debug, Clone)]
pub struct Shim {
    module: PathBuf,
    script: PathBuf,
}

/// One line of what the module was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The function, for instance `C_Encrypt`.
    pub function: String,
    /// Whether it began here, or ended.
    pub begins: bool,
    /// Which thread, numbered in the order in which they came.
    pub thread: usize,
    /// Which session, or slot; 0 for functions that have none.
    pub session: u64,
}

impl Shim {
    /// A module that does nothing wrong yet.
    ///
    /// # Panics
    ///
    /// If it cannot be built.
    #[must_use]
    pub fn new(stage: &Stage) -> Self {
        let shim = Self { module: built::pkcs11_shim(), script: stage.path("shim-script") };
        shim.order("");
        shim
    }

    /// From now on it does this: lines such as `C_Encrypt skip=1 rv=0x30`.
    ///
    /// # Panics
    ///
    /// If the script cannot be written.
    pub fn order(&self, lines: &str) {
        // A reader must not see half of it.
        let new = self.script.with_extension("new");
        fs::write(&new, lines).expect("the script can be written");
        fs::rename(new, &self.script).expect("the script can be replaced");
    }

    /// All calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        let path = format!("{}.calls", self.script.display());
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(parse).collect()
    }

    /// How often a function has been called.
    #[must_use]
    pub fn count(&self, function: &str) -> usize {
        self.calls().iter().filter(|call| call.begins && call.function == function).count()
    }

    /// The module's file.
    #[must_use]
    pub fn module(&self) -> PathBuf {
        self.module.clone()
    }

    /// The script's file.
    #[must_use]
    pub fn script(&self) -> PathBuf {
        self.script.clone()
    }
}

fn parse(line: &str) -> Option<Call> {
    let mut words = line.split(' ');
    Some(Call {
        function: words.next()?.to_owned(),
        begins: words.next()? == "begin",
        thread: words.next()?.strip_prefix("thread=")?.parse().ok()?,
        session: words.next()?.strip_prefix("session=")?.parse().ok()?,
    })
}
