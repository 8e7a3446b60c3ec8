//! Several addresses of one Vault or OpenBao, in the operator's order.
//!
//! Calls stick to the endpoint that answered last. One that failed is passed over by the next calls for
//! a while, so that a node that hangs costs one call its patience and not every call.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long an endpoint that failed is passed over, while there is another.
const AVOIDED_FOR: Duration = Duration::from_secs(10);

/// Which endpoint to ask.
#[derive(Debug)]
pub(super) struct Endpoints(Mutex<Vec<Endpoint>>);

#[derive(Debug, Clone)]
struct Endpoint {
    address: Arc<str>,
    /// When it last answered well.
    good_at: Option<Instant>,
    /// When it last failed.
    bad_at: Option<Instant>,
}

impl Endpoints {
    /// `addresses` without a slash at the end; at least one.
    pub(super) fn new(addresses: &[String]) -> Self {
        let endpoint = |address: &String| Endpoint {
            address: address.as_str().into(),
            good_at: None,
            bad_at: None,
        };
        Self(Mutex::new(addresses.iter().map(endpoint).collect()))
    }

    /// All addresses in the order in which to try them now.
    pub(super) fn order(&self) -> Vec<Arc<str>> {
        let mut endpoints: Vec<(usize, Endpoint)> =
            self.0.lock().iter().cloned().enumerate().collect();
        let avoided = |endpoint: &Endpoint| endpoint.bad_at.filter(|at| at.elapsed() < AVOIDED_FOR);
        endpoints.sort_by_key(|(at, endpoint)| {
            let avoided = avoided(endpoint);
            // Those that are avoided come last, the one first that failed longest ago; then the one
            // that answered last; then the operator's order.
            (avoided, std::cmp::Reverse(endpoint.good_at), *at)
        });
        endpoints.into_iter().map(|(_, endpoint)| endpoint.address).collect()
    }

    /// It answered.
    pub(super) fn good(&self, address: &str) {
        self.update(address, |endpoint| {
            endpoint.good_at = Some(Instant::now());
            endpoint.bad_at = None;
        });
    }

    /// It did not, or not as it should.
    pub(super) fn bad(&self, address: &str) {
        self.update(address, |endpoint| {
            endpoint.bad_at = Some(Instant::now());
            endpoint.good_at = None;
        });
    }

    /// The first answers, but another may know more: the next comes first, if it is not passed over.
    pub(super) fn turn(&self) {
        let order = self.order();
        let passed_over = |address: &Arc<str>| {
            let avoided = |at: Instant| at.elapsed() < AVOIDED_FOR;
            let endpoints = self.0.lock();
            endpoints.iter().any(|one| one.address == *address && one.bad_at.is_some_and(avoided))
        };
        if let Some(next) = order.get(1).filter(|next| !passed_over(next)) {
            self.good(next);
        }
    }

    fn update(&self, address: &str, change: impl FnOnce(&mut Endpoint)) {
        if let Some(endpoint) = self.0.lock().iter_mut().find(|e| &*e.address == address) {
            change(endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn order(endpoints: &Endpoints) -> Vec<String> {
        endpoints.order().iter().map(ToString::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn calls_stick_to_what_answers_and_pass_over_what_does_not() {
        let endpoints = Endpoints::new(&["a", "b", "c"].map(str::to_owned));
        assert_eq!(order(&endpoints), ["a", "b", "c"]);
        endpoints.good("b");
        assert_eq!(order(&endpoints), ["b", "a", "c"]);
        endpoints.bad("b");
        assert_eq!(order(&endpoints), ["a", "c", "b"]);
        advance(Duration::from_secs(1)).await;
        endpoints.bad("a");
        assert_eq!(order(&endpoints), ["c", "b", "a"]);
        advance(Duration::from_secs(1)).await;
        endpoints.bad("c");
        // All have failed: the one that failed longest ago may be back.
        assert_eq!(order(&endpoints), ["b", "a", "c"]);
        advance(AVOIDED_FOR).await;
        assert_eq!(order(&endpoints), ["a", "b", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_is_asked_by_turns_but_none_that_fails() {
        let endpoints = Endpoints::new(&["a", "b", "c"].map(str::to_owned));
        endpoints.bad("b");
        for first in ["c", "a", "c"] {
            advance(Duration::from_millis(1)).await;
            endpoints.turn();
            assert_eq!(order(&endpoints)[0], first);
        }
        endpoints.bad("a");
        endpoints.turn();
        assert_eq!(order(&endpoints)[0], "c");
        let alone = Endpoints::new(&["a".to_owned()]);
        alone.turn();
        assert_eq!(order(&alone), ["a"]);
    }
}
