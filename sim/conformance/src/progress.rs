//! What is under way, on a terminal.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};

use parking_lot::Mutex;

/// One line on standard error that is overwritten; nothing if that is no terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    total: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: usize,
    running: BTreeSet<&'static str>,
}

impl Progress {
    /// For so many checks.
    #[must_use]
    pub fn new(quiet: bool, total: usize) -> Self {
        Self { shown: !quiet && std::io::stderr().is_terminal(), total, state: Mutex::default() }
    }

    /// A check begins.
    pub fn begins(&self, id: &'static str) {
        let mut state = self.state.lock();
        state.running.insert(id);
        self.show(&state);
    }

    /// It has ended.
    pub fn ends(&self, id: &'static str) {
        let mut state = self.state.lock();
        state.running.remove(id);
        state.done += 1;
        self.show(&state);
    }

    fn show(&self, state: &State) {
        if self.shown {
            let line = line(state, self.total);
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(state: &State, total: usize) -> String {
    let running: Vec<&str> = state.running.iter().copied().collect();
    let line = format!("[{}/{total}] {}", state.done, running.join(" "));
    // Longer lines would wrap, and a wrapped line is not overwritten.
    line.chars().take(79).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_and_says_what_runs() {
        let mut state = State { done: 3, running: ["status.version"].into() };
        assert_eq!(line(&state, 41), "[3/41] status.version");
        state.running = crate::catalogue::all().map(|check| check.id).collect();
        assert_eq!(line(&state, 41).len(), 79);
    }
}
