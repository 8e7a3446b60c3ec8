//! Secrets that are written and read while something happens.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::api::Api;
use crate::clock::{Stopwatch, pause};
use crate::cluster::Cluster;
use crate::node::Node;

/// Between two writes of a writer.
const PACE: Duration = Duration::from_millis(100);

/// What became of them.
#[derive(Debug, Default)]
pub struct Written {
    /// Those that were acknowledged, with their values.
    pub acknowledged: BTreeMap<String, String>,
    /// Since the start, and what the refusal said.
    pub refused: Vec<(Duration, String)>,
    /// Reads that failed of what had been acknowledged.
    pub unread: Vec<(Duration, String)>,
    /// The longest time without an acknowledged write of one writer.
    pub longest_gap: Duration,
    /// When the write before it was acknowledged, since the start.
    pub last_before_the_longest_gap: Duration,
}

impl Cluster {
    /// Writes Secrets through each kube-apiserver while `meanwhile` runs, and reads each at once. What was
    /// acknowledged belongs to the cluster's Secrets then.
    pub fn under_load(
        &self,
        series: &str,
        meanwhile: impl FnOnce() -> Result<(), String>,
    ) -> Result<Written, String> {
        let apis = self.nodes.iter().map(Node::api).collect::<Result<Vec<_>, _>>()?;
        let written = Mutex::new(Written::default());
        let stop = AtomicBool::new(false);
        let watch = Stopwatch::start();
        let canary = format!("{}-{series}", self.canary);
        let outcome = std::thread::scope(|scope| {
            for (number, api) in apis.iter().enumerate() {
                let (canary, written, stop) = (&canary, &written, &stop);
                let series = format!("{series}-{number}");
                scope.spawn(move || write(api, &series, canary, watch, written, stop));
            }
            let _stop = Stop(&stop);
            meanwhile()
        });
        outcome?;
        let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.secrets.borrow_mut().extend(written.acknowledged.clone());
        Ok(written)
    }
}

/// Ends the writing, also if what happens meanwhile fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn write(
    api: &Api,
    series: &str,
    canary: &str,
    watch: Stopwatch,
    written: &Mutex<Written>,
    stop: &AtomicBool,
) {
    let mut last = watch.elapsed();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{series}-{number}");
        let value = format!("{canary}-{number}");
        let outcome = api.create_secret(&name, &value);
        let read = outcome.is_ok().then(|| api.read_secret(&name));
        let now = watch.elapsed();
        let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                written.gap(last, now);
                last = now;
                written.acknowledged.insert(name, value.clone());
            }
            Err(error) => written.refused.push((now, error.to_string())),
        }
        match read {
            Some(Ok(read)) if read != value => {
                written.unread.push((now, format!("another value: {read}")));
            }
            Some(Err(error)) => written.unread.push((now, error.to_string())),
            _ => {}
        }
        drop(written);
        pause(PACE);
    }
    let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
    written.gap(last, watch.elapsed());
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (written, refused) = (self.acknowledged.len(), self.refused.len());
        let pause = self.longest_gap.as_secs_f32();
        write!(f, "{written} writes, {refused} refused, the longest pause {pause:.1} s")
    }
}

impl Written {
    fn gap(&mut self, last: Duration, now: Duration) {
        if now.saturating_sub(last) > self.longest_gap {
            self.longest_gap = now.saturating_sub(last);
            self.last_before_the_longest_gap = last;
        }
    }

    /// Fails if one write was refused or one read failed.
    pub fn without_a_failure(&self) -> Result<(), String> {
        self.without_a_failure_for(Duration::MAX)
    }

    /// The same, but that later than `time` after the start writes may be refused because a seed has expired.
    pub fn without_a_failure_for(&self, time: Duration) -> Result<(), String> {
        let early = |(at, error): &&(Duration, String)| *at < time || !error.contains("expired");
        let first = self.refused.iter().find(early).or(self.unread.first());
        match first {
            None => Ok(()),
            Some((at, error)) => Err(format!(
                "{} writes were refused and {} reads failed; the first after {at:?}: {error}",
                self.refused.len(),
                self.unread.len()
            )),
        }
    }
}
