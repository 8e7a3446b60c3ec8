//! Rotation, outages and bindings, with a KMS in memory and a clock that does not wait.

pub(crate) mod fake;
mod machine;
mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::random::OsRandom;
use fake::{FakeKms, key, outage};

const HEALTH: Health =
    Health { period: Duration::from_secs(10), stale_after: Duration::from_secs(30) };

/// A provider on `kms` with its monitor running.
fn start(kms: &Arc<FakeKms>) -> Arc<Provider> {
    let (provider, monitor) = Provider::new(Arc::clone(kms) as _, Arc::new(OsRandom), HEALTH);
    tokio::spawn(monitor.run());
    provider
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

fn seed() -> Secret {
    Secret::from(vec![7; 32])
}

fn stored(encrypted: &Encrypted) -> Stored {
    Stored {
        ciphertext: encrypted.ciphertext.clone(),
        key_id: encrypted.key_id.to_string(),
        annotations: encrypted.annotations.clone(),
    }
}

async fn next_observation(provider: &Provider) {
    provider.monitor.refresh(soon() + Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn status_waits_for_the_first_observation_and_then_never() {
    let kms = FakeKms::new(&[1]);
    kms.script.lock().observing_takes = Duration::from_secs(1);
    let provider = start(&kms);
    let client = Announced::default();
    assert_eq!(provider.status(&client, soon()).await, Ok(key(1).id));
    kms.script.lock().observing_hangs = true;
    provider.monitor.nudge();
    sleep(Duration::from_secs(1)).await;
    let begin = Instant::now();
    assert_eq!(provider.status(&client, soon()).await, Ok(key(1).id));
    assert_eq!(begin.elapsed(), Duration::ZERO, "a hung KMS does not delay Status");
}

#[tokio::test(start_paused = true)]
async fn status_says_starting_when_the_first_observation_is_late() {
    let kms = FakeKms::new(&[1]);
    kms.script.lock().observing_hangs = true;
    let provider = start(&kms);
    assert_eq!(provider.status(&Announced::default(), soon()).await, Err(Error::Starting));
    let encrypted = provider.encrypt(&Announced::default(), seed(), soon()).await;
    assert_eq!(encrypted, Err(Error::Starting));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_an_error_until_the_kms_is_back() {
    let kms = FakeKms::new(&[1]);
    let provider = start(&kms);
    let client = Announced::default();
    provider.status(&client, soon()).await.unwrap();
    kms.script.lock().fails = Some(outage("unplugged"));
    sleep(HEALTH.period + Duration::from_secs(1)).await;
    let Err(Error::Outage { error, .. }) = provider.status(&client, soon()).await else {
        panic!("an outage is an error");
    };
    assert_eq!(error, outage("unplugged"));
    kms.script.lock().fails = None;
    sleep(HEALTH.period + Duration::from_secs(1)).await;
    assert_eq!(provider.status(&client, soon()).await, Ok(key(1).id));
}

#[tokio::test(start_paused = true)]
async fn a_kms_that_is_back_serves_before_the_monitor_has_noticed() {
    let kms = FakeKms::new(&[1]);
    let provider = start(&kms);
    let client = Announced::default();
    let encrypted = provider.encrypt(&client, seed(), soon()).await.unwrap();
    kms.script.lock().fails = Some(outage("unplugged"));
    next_observation(&provider).await;
    assert!(provider.decrypt(stored(&encrypted), soon()).await.is_err());
    kms.script.lock().fails = None;
    assert!(provider.decrypt(stored(&encrypted), soon()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hung_observation_makes_status_stale() {
    let kms = FakeKms::new(&[1]);
    let provider = start(&kms);
    let client = Announced::default();
    provider.status(&client, soon()).await.unwrap();
    kms.script.lock().observing_hangs = true;
    sleep(HEALTH.stale_after).await;
    provider.status(&client, soon()).await.unwrap();
    advance(Duration::from_secs(1)).await;
    assert!(matches!(provider.status(&client, soon()).await, Err(Error::Stale(_))));
}

#[tokio::test(start_paused = true)]
async fn encrypt_uses_what_status_told_this_connection() {
    let kms = FakeKms::new(&[1]);
    let provider = start(&kms);
    let (one, two, silent) = (Announced::default(), Announced::default(), Announced::default());
    assert_eq!(provider.status(&one, soon()).await, Ok(key(1).id));
    // A second key, seen by the plugin, and by one of the apiservers.
    kms.script.lock().keys.push(2);
    next_observation(&provider).await;
    assert_eq!(provider.status(&two, soon()).await, Ok(key(2).id));

    let encrypt = async |client: &Announced| {
        provider.encrypt(client, seed(), soon()).await.map(|encrypted| encrypted.key_id)
    };
    assert_eq!(encrypt(&one).await, Ok(key(1).id), "as its last Status said");
    assert_eq!(encrypt(&two).await, Ok(key(2).id));
    assert_eq!(encrypt(&silent).await, Ok(key(2).id), "it was told nothing");
    assert_eq!(provider.status(&one, soon()).await, Ok(key(2).id));
    assert_eq!(encrypt(&one).await, Ok(key(2).id));

    // The key that was announced is taken away: no other is used under its name.
    kms.script.lock().keys = vec![1];
    next_observation(&provider).await;
    assert_eq!(encrypt(&one).await, Err(Error::AnnouncedKeyGone(key(2).id)));
}

#[tokio::test(start_paused = true)]
async fn a_wrap_with_another_key_is_not_handed_out() {
    let kms = FakeKms::new(&[1, 2]);
    let provider = start(&kms);
    kms.script.lock().wraps_with = Some(1);
    let outcome = provider.encrypt(&Announced::default(), seed(), soon()).await;
    assert_eq!(outcome, Err(Error::AnotherKeyAnswered { asked: key(2).id, answered: key(1).id }));
}

#[tokio::test(start_paused = true)]
async fn older_keys_unwrap_and_a_missing_one_is_looked_for_afresh() {
    let kms = FakeKms::new(&[1]);
    let provider = start(&kms);
    let client = Announced::default();
    let encrypted = provider.encrypt(&client, seed(), soon()).await.unwrap();
    kms.script.lock().keys = vec![1, 2];
    next_observation(&provider).await;
    assert!(provider.decrypt(stored(&encrypted), soon()).await.is_ok());

    kms.script.lock().keys = vec![2];
    next_observation(&provider).await;
    let before = kms.observations.load(Ordering::SeqCst);
    let refused = provider.decrypt(stored(&encrypted), soon()).await;
    assert_eq!(
        refused.err(),
        Some(Error::KeyUnknown { key_id: key(1).id.to_string(), ours: true })
    );
    assert_eq!(kms.observations.load(Ordering::SeqCst), before + 1, "it looked afresh");
}

/// As long as no look has ended, nobody knows that the key is not there.
#[tokio::test(start_paused = true)]
async fn a_key_is_not_unknown_before_a_look_has_ended() {
    let kms = FakeKms::new(&[1]);
    let provider = start(&kms);
    let client = Announced::default();
    let encrypted = provider.encrypt(&client, seed(), soon()).await.unwrap();
    kms.script.lock().keys = vec![2];
    next_observation(&provider).await;
    kms.script.lock().observing_takes = Duration::from_secs(4);
    let refused = provider.decrypt(stored(&encrypted), soon()).await.err();
    assert_eq!(refused, Some(Error::NotLookedUp(key(1).id.to_string())));

    // The second try is too late for an answer, with a look and without.
    let too_late = BackendError::new(ErrorKind::Timeout, "unwrap", "no answer in time");
    for (takes, wanted) in
        [(1, Error::Backend(too_late.clone())), (4, Error::NotLookedUp(key(1).id.to_string()))]
    {
        kms.script.lock().observing_takes = Duration::ZERO;
        next_observation(&provider).await;
        kms.script.lock().observing_takes = Duration::from_secs(takes);
        let (calls, stored) = (Arc::clone(&provider), stored(&encrypted));
        let call = tokio::spawn(async move { calls.decrypt(stored, soon()).await.err() });
        sleep(Duration::from_millis(500)).await;
        kms.script.lock().unwrapping_fails = Some(too_late.clone());
        assert_eq!(call.await.unwrap(), Some(wanted));
        kms.script.lock().unwrapping_fails = None;
    }
}

#[tokio::test(start_paused = true)]
async fn many_unknown_ids_share_observations() {
    let kms = FakeKms::new(&[1]);
    let provider = start(&kms);
    let client = Announced::default();
    let encrypted = provider.encrypt(&client, seed(), soon()).await.unwrap();
    kms.script.lock().keys = vec![2];
    kms.script.lock().observing_takes = Duration::from_millis(20);
    let before = kms.observations.load(Ordering::SeqCst);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (provider, stored) = (Arc::clone(&provider), stored(&encrypted));
        calls.spawn(async move { provider.decrypt(stored, soon()).await.is_err() });
    }
    assert!(calls.join_all().await.into_iter().all(|refused| refused));
    let observed = kms.observations.load(Ordering::SeqCst) - before;
    assert!((1..=2).contains(&observed), "{observed} observations for 500 calls");
}

#[tokio::test(start_paused = true)]
async fn failing_calls_do_not_drive_the_kms_mad() {
    let kms = FakeKms::new(&[1]);
    let provider = start(&kms);
    let client = Announced::default();
    let encrypted = provider.encrypt(&client, seed(), soon()).await.unwrap();
    kms.script.lock().fails = Some(outage("unplugged"));
    let before = kms.observations.load(Ordering::SeqCst);
    for _ in 0..1000 {
        provider.decrypt(stored(&encrypted), soon()).await.err().unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    let observed = kms.observations.load(Ordering::SeqCst) - before;
    assert!((1..=5).contains(&observed), "{observed} observations in a second");
}

#[tokio::test(start_paused = true)]
async fn plaintexts_have_to_fit() {
    let kms = FakeKms::new(&[1]);
    let provider = start(&kms);
    let client = Announced::default();
    let encrypt =
        async |bytes: usize| provider.encrypt(&client, Secret::from(vec![1; bytes]), soon()).await;
    assert_eq!(encrypt(0).await, Err(Error::PlaintextEmpty));
    let largest = limits::CIPHERTEXT_BYTES_MAX - envelope::FRAME_BYTES - 12 - 16;
    assert_eq!(encrypt(largest).await.unwrap().ciphertext.len(), limits::CIPHERTEXT_BYTES_MAX);
    for bytes in [largest + 1, limits::CIPHERTEXT_BYTES_MAX + 1, 1 << 20] {
        let max = limits::CIPHERTEXT_BYTES_MAX;
        assert_eq!(encrypt(bytes).await, Err(Error::PlaintextTooLong { bytes, max }));
    }
}

/// One change of something that is stored.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Truncate(usize),
    Extend(u8),
    OtherVersion,
    OtherKey,
    Annotate(String, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), 0u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (1usize..70).prop_map(Change::Truncate),
        any::<u8>().prop_map(Change::Extend),
        Just(Change::OtherVersion),
        Just(Change::OtherKey),
        ("[a-z.]{1,9}", proptest::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(name, value)| Change::Annotate(name, value)),
    ]
}

impl Change {
    fn apply(&self, stored: &mut Stored) {
        let length = stored.ciphertext.len();
        match self {
            Self::Flip(at, bit) => stored.ciphertext[at % length] ^= 1 << bit,
            Self::Truncate(by) => stored.ciphertext.truncate(length.saturating_sub(*by)),
            Self::Extend(byte) => stored.ciphertext.push(*byte),
            Self::OtherVersion => stored.key_id.push('0'),
            Self::OtherKey => stored.key_id = key(1).id.to_string(),
            Self::Annotate(name, value) => {
                stored.annotations.insert(name.clone(), value.clone());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_seed_comes_back_and_any_change_is_refused(
        plaintext in proptest::collection::vec(any::<u8>(), 1..200),
        change in change(),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let kms = FakeKms::new(&[1, 2]);
            let provider = start(&kms);
            let client = Announced::default();
            let secret = Secret::from(plaintext.clone());
            let encrypted = provider.encrypt(&client, secret, soon()).await.unwrap();
            let good = stored(&encrypted);
            let opened = provider.decrypt(good.clone(), soon()).await.ok().unwrap();
            prop_assert_eq!(opened.expose(), &plaintext[..]);

            let mut bad = good;
            change.apply(&mut bad);
            prop_assert!(provider.decrypt(bad, soon()).await.is_err(), "{:?}", change);
            Ok(())
        })?;
    }

    #[test]
    fn annotations_are_bound_too(
        annotations in proptest::collection::btree_map(
            "[a-z.]{1,5}", proptest::collection::vec(any::<u8>(), 0..5), 0..4),
        others in proptest::collection::btree_map(
            "[a-z.]{1,5}", proptest::collection::vec(any::<u8>(), 0..5), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let kms = FakeKms::new(&[1]);
            let (scheme, id) = (kms.scheme(), key(1).id);
            let aad = |with| envelope::aad(scheme, &id.to_string(), with);
            let request =
                WrapRequest { key: id.clone(), plaintext: seed(), aad: aad(&annotations) };
            let wrapped = kms.wrap(request, soon()).await.unwrap();
            let request =
                UnwrapRequest { key: id.clone(), payload: wrapped.payload, aad: aad(&others) };
            let opened = kms.unwrap(Arc::new(request), soon()).await;
            prop_assert_eq!(opened.is_ok(), annotations == others);
            Ok(())
        })?;
    }
}
