//! Reading the configuration again while the apiserver runs (flag `--encryption-provider-config-automatic-reload`;
//! upstream `encryptionconfig/controller/controller.go`; spec 7, "Reload").
//!
//! Pure: [`Reload::look`] says what a file leads to; its driver does it and says how it went.
//!
//! Nothing of the old survives a change: every `kms` entry, changed or not, gets a new connection, a Status and an
//! Encrypt with a new seed, forgets the seeds that it unwrapped and the version that its plugin said first.

use std::time::Duration;

use crate::cache::Cache;
use crate::config::{self, Plan};
use crate::probe::Probe;
use crate::transform::Entry;
use crate::version::Version;

/// How often the file is looked at; first at once (`EncryptionConfigFileChangePollDuration`).
pub const EVERY: Duration = Duration::from_secs(60);

/// How often new plugins are asked for health until all are well. The reuse of results thins that out.
pub const HEALTH_EVERY: Duration = Duration::from_millis(100);

/// Least time that new plugins have to become healthy (`minKMSPluginCloseGracePeriod`).
pub const HEALTHY_WITHIN_MIN: Duration = Duration::from_secs(10);

/// After the first failure it is tried again so much later, after each further one in twice that time.
pub const RETRY_FIRST: Duration = Duration::from_millis(5);

/// Longest wait between tries. The file is looked at each minute all the same.
pub const RETRY_MAX: Duration = Duration::from_secs(1000);

/// What is in use, and how often a change has failed.
pub struct Reload {
    by: Version,
    /// Of the file that was last applied.
    applied: String,
    /// Never set back, by a success neither.
    failures: u32,
}

/// What a look at the file leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing: it is the one in use, or was again made so.
    Unchanged,
    /// All of it is to be built anew beside what is in use, and asked for health: a health check of all entries
    /// each [`HEALTH_EVERY`], for as long as [`Candidate::healthy_within`].
    Try(Candidate),
    /// What is in use stays.
    Failed(Failure),
}

/// A changed configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it says.
    pub plan: Plan,
    /// By what it is known once it is in use.
    hash: String,
    by: Version,
}

/// A change that did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub error: String,
    /// When to look again, besides the look of each minute.
    pub retry_after: Duration,
}

impl Candidate {
    /// Its entries, with nothing known: the same as at a start.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        entries(&self.plan, self.by)
    }

    /// How long its plugins have to become healthy.
    #[must_use]
    pub fn healthy_within(&self) -> Duration {
        self.plan.grace().max(HEALTHY_WITHIN_MIN)
    }
}

/// The entries of a plan, with nothing known, in the order of [`Plan::plugins`].
#[must_use]
pub fn entries(plan: &Plan, by: Version) -> Vec<Entry> {
    let entry = |plugin: &config::Plugin| Entry {
        probe: Probe::new(&plugin.name, by),
        cache: Cache::default(),
    };
    plan.plugins.iter().map(entry).collect()
}

impl Reload {
    /// After a start with this file.
    #[must_use]
    pub fn new(by: Version, file: &[u8]) -> Self {
        Self { by, applied: by.config_hash(file), failures: 0 }
    }

    /// What to do about the file as it is now; an error is why it cannot be read.
    pub fn look(&mut self, file: Result<&[u8], String>) -> Look {
        let file = match file {
            Ok(file) => file,
            Err(error) => return Look::Failed(self.failed(error)),
        };
        let hash = self.by.config_hash(file);
        // An empty file cannot be in use; upstream refuses it before it compares.
        if hash == self.applied {
            return Look::Unchanged;
        }
        match config::load(file, self.by, true) {
            Ok(plan) => Look::Try(Candidate { plan, hash, by: self.by }),
            Err(error) => Look::Failed(self.failed(error.to_string())),
        }
    }

    /// All of a candidate's plugins are well: it is in use from now on, at once for all resources.
    ///
    /// Returns after how long the connections and polls of the `old` ones end: calls may be under way.
    pub fn healthy(&mut self, candidate: Candidate, old: &Plan) -> Duration {
        self.applied = candidate.hash;
        old.grace()
    }

    /// A candidate's plugins were not well in time, with this as their last error: it is torn down at once.
    pub fn unhealthy(&mut self, error: &str) -> Failure {
        self.failed(format!("health check for new transformers failed: {error}"))
    }

    fn failed(&mut self, error: String) -> Failure {
        let doubled = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        Failure { error, retry_after: RETRY_FIRST.saturating_mul(doubled).min(RETRY_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(providers: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
             resources: [{{resources: [secrets], providers: [{providers}]}}]\n"
        )
    }

    fn kms(name: &str, timeout: &str) -> String {
        format!(
            "{{kms: {{apiVersion: v2, name: {name}, endpoint: 'unix:///{name}', timeout: {timeout}}}}}"
        )
    }

    fn reload(file: &str) -> Reload {
        Reload::new(Version::V1_37, file.as_bytes())
    }

    fn tried(reload: &mut Reload, file: &str) -> Candidate {
        match reload.look(Ok(file.as_bytes())) {
            Look::Try(candidate) => candidate,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_applied_once_it_is_healthy() {
        let (old, new) = (file(&kms("a", "3s")), file(&kms("b", "7s")));
        let old_plan = config::load(old.as_bytes(), Version::V1_37, true).unwrap();
        let mut reload = reload(&old);
        assert_eq!(reload.look(Ok(old.as_bytes())), Look::Unchanged);
        let candidate = tried(&mut reload, &new);
        assert_eq!(candidate.healthy_within(), Duration::from_secs(14));
        // Not yet: it is tried again, until it is.
        tried(&mut reload, &new);
        assert_eq!(reload.healthy(candidate, &old_plan), Duration::from_secs(6), "the old one's");
        assert_eq!(reload.look(Ok(new.as_bytes())), Look::Unchanged);
    }

    #[test]
    fn any_byte_is_a_change_and_everything_is_new() {
        let old = file(&format!("{}, {}", kms("a", "1s"), kms("b", "1s")));
        let mut reload = reload(&old);
        let candidate = tried(&mut reload, &format!("{old}# a comment\n"));
        assert_eq!(candidate.healthy_within(), HEALTHY_WITHIN_MIN);
        let entries = candidate.entries();
        assert_eq!(entries.iter().map(|entry| entry.probe.name()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(entries.iter().all(|entry| entry.probe.state().is_err() && entry.cache.is_empty()));
    }

    #[test]
    fn what_fails_leaves_the_old_in_use() {
        let old = file(&kms("a", "3s"));
        let mut reload = reload(&old);
        let mut waits = Vec::new();
        for broken in [Ok(b"".as_slice()), Ok(b"]"), Err("no such file".to_owned())] {
            match reload.look(broken) {
                Look::Failed(failure) => waits.push(failure.retry_after.as_millis()),
                other => panic!("{other:?}"),
            }
        }
        tried(&mut reload, &file(&kms("b", "3s")));
        waits.push(reload.unhealthy("kms-provider-0: E").retry_after.as_millis());
        assert_eq!(waits, [5, 10, 20, 40]);
        assert_eq!(reload.look(Ok(old.as_bytes())), Look::Unchanged);
        // Looking at a good file does not set it back.
        let waits: Vec<_> = (0..40).map(|_| reload.unhealthy("E").retry_after).collect();
        assert_eq!(waits[0].as_millis(), 80);
        assert_eq!(waits[39], RETRY_MAX);
    }

    /// With the flag, names of v1's entries have to be unique, too.
    #[test]
    fn a_changed_file_is_validated_as_with_the_flag() {
        let v1 = "{kms: {name: a, endpoint: 'unix:///a'}}";
        let Look::Failed(failure) = reload("").look(Ok(file(&format!("{v1}, {v1}")).as_bytes()))
        else {
            panic!("it is wrong")
        };
        assert!(failure.error.contains("duplicate KMS provider name a"), "{}", failure.error);
    }
}
