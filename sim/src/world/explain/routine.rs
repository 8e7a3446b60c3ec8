//! What goes as it always does: worth a number, and not a line each.

use std::collections::BTreeMap;

use crate::world::history::Is;

/// What each node has told last.
#[derive(Default)]
pub(super) struct Known {
    /// By node, and by what has named it.
    key_ids: BTreeMap<(usize, String), String>,
    /// Whether it was healthy.
    healthy: BTreeMap<usize, bool>,
}

impl Known {
    /// Whether nothing of this is new: it went well, and under the key of before.
    pub(super) fn has(&mut self, is: &Is) -> bool {
        match is {
            Is::Kms { error: None, .. } | Is::Read { error: None, same: true, .. } => true,
            Is::Called { node, rpc, error: None, key_id, illegal: None, .. } => {
                self.is_same(*node, rpc, key_id.as_deref())
            }
            Is::Wrote { node, error: None, key_id, truly: true, shows: false, .. } => {
                self.is_same(*node, "a write", key_id.as_deref())
            }
            Is::Health { node, error } => {
                self.healthy.insert(*node, error.is_none()) == Some(true) && error.is_none()
            }
            _ => false,
        }
    }

    fn is_same(&mut self, node: usize, by: &str, key_id: Option<&str>) -> bool {
        let Some(key_id) = key_id else { return true };
        let before = self.key_ids.insert((node, by.to_owned()), key_id.to_owned());
        before.is_some_and(|before| before == key_id)
    }
}

/// How often what has gone as always, since it was told last.
#[derive(Default)]
pub(super) struct Routine(BTreeMap<&'static str, usize>);

impl Routine {
    /// Nothing has.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more of these.
    pub(super) fn count(&mut self, is: &Is) {
        let name = match is {
            Is::Kms { .. } => "calls of the KMS",
            Is::Called { .. } => "calls of plugins",
            Is::Read { .. } => "reads",
            Is::Wrote { .. } => "writes",
            _ => "looks at /healthz",
        };
        *self.0.entry(name).or_default() += 1;
    }

    /// A line that says so, if there is something to say.
    pub(super) fn take(&mut self) -> String {
        let counts = std::mem::take(&mut self.0);
        if counts.is_empty() {
            return String::new();
        }
        let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        format!("{:>10}  … as before: {}\n", "", counts.join(", "))
    }
}
