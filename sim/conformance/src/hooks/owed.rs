//! What hooks have done to the KMS and the plugin, and is to be undone however a run ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Hook;

/// The hooks that have to be called yet, each with the one that it undoes. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Owed(Arc<Mutex<BTreeMap<Hook, Hook>>>);

impl Owed {
    /// A hook begins: even if it is cut off, it may have had its effect.
    pub(super) fn begins(&self, hook: Hook) {
        if let Some(undo) = undoes(hook) {
            self.0.lock().insert(undo, hook);
        }
    }

    /// It ended well.
    pub(super) fn ended(&self, hook: Hook) {
        self.0.lock().remove(&hook);
    }

    /// What is to be called, and what each of it undoes.
    pub(super) fn all(&self) -> Vec<(Hook, Hook)> {
        self.0.lock().iter().map(|(undo, done)| (*undo, *done)).collect()
    }
}

/// The hook that undoes this one. A rotation stays.
fn undoes(hook: Hook) -> Option<Hook> {
    match hook {
        Hook::Stop | Hook::Kill => Some(Hook::Start),
        Hook::BackendDown => Some(Hook::BackendUp),
        Hook::DenyDecrypt => Some(Hook::AllowDecrypt),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_undone_is_owed_no_longer() {
        let owed = Owed::default();
        for hook in [Hook::Rotate, Hook::Kill, Hook::BackendDown, Hook::PrintLog] {
            owed.begins(hook);
            owed.ended(hook);
        }
        assert_eq!(owed.all(), [(Hook::Start, Hook::Kill), (Hook::BackendUp, Hook::BackendDown)]);
        owed.clone().begins(Hook::Start);
        assert_eq!(owed.all().len(), 2, "it may fail yet");
        owed.clone().ended(Hook::Start);
        assert_eq!(owed.all(), [(Hook::BackendUp, Hook::BackendDown)]);
    }
}
