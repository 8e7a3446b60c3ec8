//! What a plugin shows from the moment on in which the KMS is taken away.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use kleidi_proto::kms::{EncryptResponse, StatusResponse};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::check::Stop;
use crate::client::{Client, answered, back, code_name, overdue};
use crate::context::Context;
use crate::hooks::Hook;

/// An answer of Encrypt and its seed.
pub(super) type Wrapped = (EncryptResponse, Vec<u8>);

/// Calls, of which nothing is thrown away that has to be true afterwards.
pub(super) struct Seen<'a> {
    cx: &'a Context,
    /// What Status reported.
    key_ids: Mutex<Vec<String>>,
    /// What Encrypt answered.
    wrapped: Mutex<Vec<Wrapped>>,
    /// The codes with which Encrypt was refused.
    refusals: Mutex<BTreeSet<&'static str>>,
    /// Encrypts without an answer of the plugin's own: too late, or cut off.
    unanswered: AtomicUsize,
}

impl<'a> Seen<'a> {
    /// Nothing yet.
    pub(super) fn new(cx: &'a Context) -> Self {
        Self {
            cx,
            key_ids: Mutex::default(),
            wrapped: Mutex::default(),
            refusals: Mutex::default(),
            unanswered: AtomicUsize::new(0),
        }
    }

    /// Every key_id that Status reported.
    pub(super) fn key_ids(&self) -> Vec<String> {
        self.key_ids.lock().clone()
    }

    /// Everything that Encrypt answered.
    pub(super) fn wrapped(&self) -> Vec<Wrapped> {
        self.wrapped.lock().clone()
    }

    /// How the Encrypts ended that did not succeed, in words.
    pub(super) fn failures(&self) -> String {
        let unanswered = self.unanswered.load(Ordering::SeqCst);
        format!("refused with {:?}; {unanswered} got no answer", self.refusals.lock())
    }

    /// Calls Status on this connection.
    pub(super) async fn status(&self, client: &Client) -> Result<StatusResponse, Status> {
        let status = client.status().await?;
        self.key_ids.lock().push(status.key_id.clone());
        Ok(status)
    }

    /// Encrypts a seed on this connection.
    pub(super) async fn encrypt(&self, client: &Client) -> Result<(), Status> {
        let seed = self.cx.seed();
        match client.encrypt(&seed, self.cx.uid()).await {
            Ok(wrapped) => {
                self.wrapped.lock().push((wrapped, seed));
                Ok(())
            }
            Err(status) => {
                if answered(&status) {
                    self.refusals.lock().insert(code_name(status.code()));
                } else {
                    self.unanswered.fetch_add(1, Ordering::SeqCst);
                }
                Err(status)
            }
        }
    }

    /// How Status, on a connection of its own, shows an outage now; that a connection ends does not show it.
    pub(super) async fn shows(&self) -> Option<Code> {
        let client = self.cx.connect().await.ok()?;
        match self.status(&client).await {
            Err(status) => answered(&status).then(|| status.code()),
            Ok(status) => (status.healthz != "ok").then_some(Code::Ok),
        }
    }

    /// How Status shows an outage, as soon as it does.
    pub(super) async fn shown(&self) -> Option<Code> {
        self.cx.poll(self.cx.settings().outage_window, async || self.shows().await).await
    }

    /// Waits until a call shows the outage, whichever: a hook that did nothing proves nothing.
    pub(super) async fn felt(&self, wrapped: &EncryptResponse) -> Result<(), Stop> {
        let look = async || {
            if self.shows().await.is_some() {
                return Some(());
            }
            let client = self.cx.connect().await.ok()?;
            // No answer in time shows it, too.
            let shows = |status: Status| (answered(&status) || overdue(&status)).then_some(());
            let encrypt = self.encrypt(&client).await.err().and_then(shows);
            if encrypt.is_some() {
                return encrypt;
            }
            client.decrypt(back(wrapped, self.cx.uid())).await.err().and_then(shows)
        };
        self.cx.poll(self.cx.settings().outage_window, look).await.ok_or_else(|| {
            Stop::NotRun(
                "neither Status, Encrypt nor Decrypt showed that --on-backend-down took the KMS away"
                    .to_owned(),
            )
        })
    }

    /// Calls Status and Encrypt on new connections, and Status on one from before, for as long as
    /// kube-apiserver waits to ask an unhealthy plugin again: a plugin may do right at first, and wrong when
    /// it has noticed.
    pub(super) async fn lasts(&self, client: &Client) {
        let wait = self.cx.settings().polls.unhealthy;
        let begin = Instant::now();
        while begin.elapsed() < wait {
            // Whatever they say, it is kept.
            let _ = self.status(client).await;
            if let Ok(client) = self.cx.connect().await {
                let _ = self.status(&client).await;
                let _ = self.encrypt(&client).await;
            }
            sleep(wait / 20).await;
        }
    }

    /// Whether Status is ok, and Encrypt and Decrypt work, on this endpoint; what is encrypted here is no longer
    /// of the outage.
    pub(super) async fn works(&self, endpoint: usize) -> Option<()> {
        let client = self.cx.connect_to(endpoint).await.ok()?;
        if self.status(&client).await.ok()?.healthz != "ok" {
            return None;
        }
        let seed = self.cx.seed();
        let wrapped = client.encrypt(&seed, self.cx.uid()).await.ok()?;
        let answer = client.decrypt(back(&wrapped, self.cx.uid())).await.ok()?;
        (answer == seed).then_some(())
    }

    /// Waits until another endpoint is well after the outage.
    pub(super) async fn recovers(&self, endpoint: usize) -> Result<(), Stop> {
        let settings = self.cx.settings();
        let window = settings.outage_window.max(settings.polls.unhealthy);
        self.cx.poll(window, async || self.works(endpoint).await).await.ok_or_else(|| {
            let endpoint = &settings.endpoints[endpoint];
            Stop::NotRun(format!("{endpoint} was not well within {window:?} after the outage"))
        })
    }

    /// Ends the outage, whatever was seen, and waits until the plugin is well, for which there is a
    /// connection then; what was seen comes first.
    pub(super) async fn over(&self, up: Hook, seen: Result<(), Stop>) -> Result<Client, Stop> {
        self.cx.hook(up).await?;
        let settings = self.cx.settings();
        let window = settings.outage_window.max(settings.polls.unhealthy);
        // Status may not have noticed a short outage, whose end the other calls still have to see.
        self.cx.poll(window, async || self.works(0).await).await;
        let well = self.cx.well_within(window).await;
        seen?;
        let (client, status) =
            well.map_err(|why| Stop::Failed(format!("it was not well after the outage: {why}")))?;
        self.key_ids.lock().push(status.key_id);
        Ok(client)
    }
}
