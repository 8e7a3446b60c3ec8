//! Any order of calls, cancelled calls, rotations, outages and restarts.

use std::time::Duration;

use kleidi::limits;
use kleidi_proto::kms::{DecryptRequest, EncryptRequest, StatusRequest};
use kleidi_sim::world::plan::{Trouble, What};
use tokio::time::{Instant, sleep, timeout};

use super::stage::{Client, PERIOD, Stage, request_for, run};

/// Steps that are taken; the bytes may say more.
const STEPS_MAX: usize = 64;

/// Two bytes a step: which, and what it needs. What was wrapped can be unwrapped whenever the KMS can, with
/// the key that its key_id names, which is the key that Status last told on that connection; every call ends in
/// time; and when all is well again, all is well.
pub fn request_sequence(bytes: &[u8]) {
    run(async {
        let mut system = System::new().await;
        for step in bytes.chunks_exact(2).take(STEPS_MAX) {
            system.step(step[0], step[1]).await;
        }
        system.settles().await;
    });
}

/// A client of the plugin.
struct Caller {
    client: Client,
    /// What Status said last on this connection.
    told: Option<String>,
}

/// A seed that was wrapped.
struct Wrapped {
    request: DecryptRequest,
    plaintext: Vec<u8>,
    /// Which version of the key has wrapped it.
    version: u64,
}

struct System {
    stage: Stage,
    callers: [Caller; 2],
    wrapped: Vec<Wrapped>,
    trouble: Trouble,
}

impl System {
    async fn new() -> Self {
        let stage = Stage::new();
        let callers = [Self::caller(&stage).await, Self::caller(&stage).await];
        Self { stage, callers, wrapped: Vec::new(), trouble: Trouble::None }
    }

    async fn caller(stage: &Stage) -> Caller {
        Caller { client: stage.client().await, told: None }
    }

    async fn step(&mut self, which: u8, what: u8) {
        let caller = usize::from(what & 1);
        match which % 11 {
            0 => self.status(caller).await,
            1 => self.encrypt(caller, what >> 1).await,
            2 => self.decrypt(caller, usize::from(what >> 1)).await,
            3 => self.stage.kms.happen(&What::Rotated),
            4 if what & 2 == 0 => self.stage.kms.happen(&What::OldEnabled),
            4 => self.stage.kms.happen(&What::OldDisabled),
            5 => self.cancel(caller, what >> 1).await,
            6 => self.callers[caller] = Self::caller(&self.stage).await,
            7 => self.trouble(what),
            8 => sleep(Duration::from_secs(u64::from(what) % 16)).await,
            9 => {
                let ms = u64::from(what) % 30 * 1000;
                self.stage.kms.happen(&What::KmsLag { node: 0, ms });
            }
            _ => {
                self.stage.restart();
                for caller in 0..2 {
                    self.callers[caller] = Self::caller(&self.stage).await;
                }
            }
        }
    }

    fn trouble(&mut self, what: u8) {
        self.trouble = match what % 8 {
            0 => Trouble::Unreachable,
            1 => Trouble::Hangs,
            2 => Trouble::Throttled,
            3 => Trouble::Forbidden,
            4 => Trouble::WrapDenied,
            5 => Trouble::UnwrapDenied,
            6 => Trouble::WrapsWithPrevious,
            _ => Trouble::None,
        };
        self.stage.kms.happen(&What::Kms { node: 0, does: self.trouble });
    }

    async fn status(&mut self, caller: usize) {
        let Caller { client, told } = &mut self.callers[caller];
        let begun = Instant::now();
        if let Ok(answer) = client.status(StatusRequest {}).await {
            let status = answer.into_inner();
            assert_eq!((&*status.version, &*status.healthz), ("v2", "ok"));
            *told = Some(status.key_id);
        }
        in_time(begun);
    }

    async fn encrypt(&mut self, caller: usize, length: u8) {
        let Caller { client, told } = &mut self.callers[caller];
        let plaintext = vec![length; usize::from(length)];
        let request = EncryptRequest { plaintext: plaintext.clone(), uid: String::new() };
        let begun = Instant::now();
        let answer = client.encrypt(request).await;
        in_time(begun);
        let Ok(answer) = answer else { return };
        let answer = answer.into_inner();
        assert!(!plaintext.is_empty(), "nothing was wrapped");
        assert!(answer.ciphertext.len() <= limits::CIPHERTEXT_BYTES_MAX);
        assert!(told.as_ref().is_none_or(|told| *told == answer.key_id), "not what Status said");
        let kms = &self.stage.kms;
        // Behind two bytes of frame.
        let version = kms.who_wrapped(&answer.ciphertext[2..]).unwrap();
        let id = kms.id_of(version).unwrap();
        assert_eq!(id.as_str(), answer.key_id, "another key has wrapped it");
        self.wrapped.push(Wrapped { request: request_for(answer), plaintext, version });
    }

    async fn decrypt(&mut self, caller: usize, index: usize) {
        let Some(wrapped) = self.wrapped.get(index % self.wrapped.len().max(1)) else { return };
        let begun = Instant::now();
        let answer = self.callers[caller].client.decrypt(wrapped.request.clone()).await;
        in_time(begun);
        let usable = self.stage.kms.is_usable(wrapped.version);
        match answer {
            Ok(answer) => {
                assert!(usable, "no KMS has unwrapped that");
                assert_eq!(answer.into_inner().plaintext, wrapped.plaintext);
            }
            Err(error) => {
                let unwraps = matches!(
                    self.trouble,
                    Trouble::None | Trouble::WrapDenied | Trouble::WrapsWithPrevious
                );
                // After a restart, a node may have to hear of the key again.
                let heard = self.trouble == Trouble::None && wrapped.version == 0;
                assert!(!(unwraps && usable && heard), "{error}");
            }
        }
    }

    /// A call of which the client has enough before it has ended.
    async fn cancel(&mut self, caller: usize, after: u8) {
        let client = &mut self.callers[caller].client;
        let request = EncryptRequest { plaintext: vec![1; 32], uid: String::new() };
        let _ =
            timeout(Duration::from_micros(u64::from(after) * 50), client.encrypt(request)).await;
    }

    /// All is well from now on.
    async fn settles(&mut self) {
        self.trouble(7);
        self.stage.kms.happen(&What::OldEnabled);
        self.stage.kms.happen(&What::KmsLag { node: 0, ms: 0 });
        sleep(PERIOD * 2).await;
        let mut caller = Self::caller(&self.stage).await;
        let status = caller.client.status(StatusRequest {}).await.unwrap().into_inner();
        let current = self.stage.kms.id_of(self.stage.kms.current()).unwrap();
        assert_eq!(status.key_id, current.as_str(), "the latest key is named");
        for wrapped in &self.wrapped {
            let answer = caller.client.decrypt(wrapped.request.clone()).await.unwrap();
            assert_eq!(answer.into_inner().plaintext, wrapped.plaintext);
        }
    }
}

/// No call takes longer than it may.
fn in_time(begun: Instant) {
    let took = begun.elapsed();
    assert!(took <= limits::CALL_TIMEOUT + Duration::from_millis(50), "{took:?}");
}
