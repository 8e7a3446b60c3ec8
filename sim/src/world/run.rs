//! Plays a plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kleidi::sim_point::{Holds, hold};
use tokio::time::{Instant, sleep, sleep_until};

use super::history::{History, Is, KeyState, Record};
use super::kms::{self, Kms};
use super::log;
use super::mutant::Mutant;
use super::net::{Link, Net};
use super::node::{Node, OTHER, PROVIDER, Shared};
use super::panics::Panics;
use super::plan::{Plan, Provider, Trouble, What};
use super::plugin::address;
use super::random::Stream;
use super::store::{Store, record};

/// How long all apiservers have to be good again after everything is healed: grpc-go waits 144 s between
/// two attempts to connect at most, and a poll comes each 10 s.
pub const HEALS_IN: Duration = Duration::from_secs(144 + 3 + 10 + 10);

/// Plays it from beginning to end: what happened.
pub fn run(plan: &Plan, mutant: Option<Mutant>) -> Result<Vec<Record>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("there is no runtime: {error}"))?;
    let panics = Panics::watch();
    runtime.block_on(play(Arc::new(plan.clone()), mutant, &panics))
}

async fn play(
    plan: Arc<Plan>,
    mutant: Option<Mutant>,
    panics: &Panics,
) -> Result<Vec<Record>, String> {
    let history = History::begin();
    let _log = log::read(&history);
    let _points = plan.points.then(|| points(plan.seed));
    let begin = Instant::now();
    let shared = Arc::new(Shared {
        net: Net::default(),
        kms: kms::new(&plan, Arc::clone(&history)),
        store: Store::new(plan.all_objects()),
        history: Arc::clone(&history),
        seed: plan.seed,
        period: Duration::from_secs(plan.period_s),
        mutant,
    });
    let mut keys = Keys::default();
    keys.look(&*shared.kms, &history);
    let mut nodes = Vec::new();
    for number in 0..plan.nodes {
        nodes.push(Node::new(&shared, number, &plan)?);
    }
    for node in &nodes {
        Arc::clone(node).start_apiserver().await;
    }
    let mut clients: Vec<_> =
        nodes.iter().map(|node| tokio::spawn(Arc::clone(node).use_it(Arc::clone(&plan)))).collect();
    for event in &plan.events {
        sleep_until(begin + Duration::from_millis(event.at_ms)).await;
        history.push(Is::Event(event.what.clone()));
        happen(&shared, &nodes, &plan, &event.what);
        keys.look(&*shared.kms, &history);
    }
    sleep_until(begin + plan.lasts()).await;
    for client in clients.drain(..) {
        client.abort();
    }
    heal(&shared, &nodes, &plan);
    keys.look(&*shared.kms, &history);
    conclude(&shared, &nodes, &plan).await;
    for (then, what) in panics.take() {
        history.push_at(then, Is::Panicked { what });
    }
    history.look_for_seeds();
    let current = shared.kms.id_of(shared.kms.current());
    history.push(Is::Current { key_id: current.map(|id| id.to_string()) });
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    history.push(Is::Tasks { count: tasks });
    Ok(history.take())
}

/// How long the product is held up at a point at most.
const HELD_UP: Duration = Duration::from_millis(400);

/// Some of the product's points are at work in this run; at those it is held up now and then.
fn points(seed: u64) -> Holds {
    let passes = Stream::of(seed, "points");
    hold(move |name| {
        let at_work = Stream::of(seed, &format!("point {name}")).chance(50);
        if at_work && passes.chance(25) {
            passes.time(Duration::from_millis(1), HELD_UP)
        } else {
            Duration::ZERO
        }
    })
}

/// By then connections that nobody needs are closed.
const IDLE: Duration = Duration::from_secs(120);

/// All is healed: everything is read and written.
async fn conclude(shared: &Arc<Shared>, nodes: &[Arc<Node>], plan: &Plan) {
    sleep(HEALS_IN + shared.period).await;
    for node in nodes {
        if !node.has_apiserver() {
            node.health(Some("the apiserver does not run".to_owned()));
        }
        node.look().await;
        node.read_all(plan.all_objects()).await;
        node.write(0);
    }
    // And all of it once more, by processes that know nothing: what was in their memory hides what is lost.
    for node in nodes {
        node.kill_plugin();
        node.start_plugin();
        Arc::clone(node).start_apiserver().await;
    }
    sleep(Duration::from_secs(30)).await;
    for node in nodes {
        node.look().await;
        node.read_all(plan.all_objects()).await;
    }
    sleep(IDLE).await;
}

/// What the judge has to know of the keys.
#[derive(Default)]
struct Keys {
    known: BTreeMap<u64, bool>,
    current: Option<String>,
}

impl Keys {
    /// Tells the history what is not as it was.
    fn look(&mut self, kms: &dyn Kms, history: &History) {
        let keys = kms.keys();
        let current = kms.id_of(kms.current()).map(|id| id.to_string());
        let gone = self.known.keys().filter(|key| !keys.contains_key(*key));
        let mut changed: Vec<_> = gone.map(|key| (*key, KeyState::Gone)).collect();
        let others = keys.iter().filter(|(key, usable)| self.known.get(*key) != Some(*usable));
        changed.extend(others.map(|(key, usable)| {
            (*key, if *usable { KeyState::Usable } else { KeyState::Barred })
        }));
        if !changed.is_empty() || current != self.current {
            history.push(Is::Keys { current: current.clone(), changed });
        }
        (self.known, self.current) = (keys, current);
    }
}

/// Makes it so.
fn happen(shared: &Arc<Shared>, nodes: &[Arc<Node>], plan: &Plan, what: &What) {
    let Shared { net, kms, store, .. } = &**shared;
    let millis = Duration::from_millis;
    match what {
        What::PluginKilled { node } => nodes[*node].kill_plugin(),
        What::PluginStopped { node } => nodes[*node].stop_plugin(),
        What::PluginStarted { node } => nodes[*node].start_plugin(),
        What::ApiserverRestarted { node } => {
            tokio::spawn(Arc::clone(&nodes[*node]).start_apiserver());
        }
        What::Socket { node, is } => net.change(&address(*node), |link| link.gate = *is),
        What::Cut { node } => net.cut(&address(*node)),
        What::HalfClosed { node } => net.half_close(&address(*node)),
        What::Slow { node, delay_ms, piece } => net.change(&address(*node), |link| {
            (link.delay, link.piece) = (millis(*delay_ms), *piece);
        }),
        What::Kms { .. }
        | What::KmsTakes { .. }
        | What::KmsLag { .. }
        | What::Rotated
        | What::Reinstated
        | What::OldDisabled
        | What::OldEnabled
        | What::Server { .. }
        | What::ServerLag { .. }
        | What::Route { .. }
        | What::SteppedDown
        | What::TokensRevoked
        | What::KeyMadeAnew
        | What::BackedUp
        | What::Restored => kms.happen(what),
        What::OldDestroyed => {
            if shared.mutant == Some(Mutant::DestroysUnasked) || is_old_unneeded(shared, nodes) {
                kms.destroy_old();
            }
        }
        What::OldDestroyedUnasked => kms.destroy_old(),
        What::Rewritten { node } => {
            let (node, objects) = (Arc::clone(&nodes[*node]), plan.all_objects());
            tokio::spawn(async move {
                for object in 0..objects {
                    node.rewrite(object).await;
                }
            });
        }
        What::Flipped { object, bit } => store.flip(*object % plan.objects, *bit),
        What::Swapped { one, other } => store.swap(*one % plan.objects, *other % plan.objects),
        What::SeedsSwapped { one, other } => {
            store.swap_seeds(*one % plan.objects, *other % plan.objects);
        }
        What::RolledBack { object } => store.roll_back(*object % plan.objects, |value| {
            shared.who_wrapped(value).is_some_and(|version| kms.is_usable(version))
        }),
        What::Burst { node } => {
            tokio::spawn(Arc::clone(&nodes[*node]).burst(Arc::new(plan.clone())));
        }
        What::Configured { node, providers } => nodes[*node].configure(providers),
    }
}

/// As an operator is told to: nothing in etcd is under an old key any more, by its key_id, and nothing will be.
fn is_old_unneeded(shared: &Shared, nodes: &[Arc<Node>]) -> bool {
    let Shared { kms, store, .. } = shared;
    let current = kms.id_of(kms.current()).map(|id| id.fingerprint());
    let under_current = |value: &[u8]| {
        let Some(record) = record(value) else { return true };
        let id = record.key_id.parse::<kleidi::key_id::KeyId>();
        id.is_ok_and(|id| Some(id.fingerprint()) == current)
    };
    nodes.iter().all(|node| node.wraps_with(current))
        && store.all().iter().all(|(_, stored)| under_current(&stored.value))
}

/// Ends all faults.
fn heal(shared: &Arc<Shared>, nodes: &[Arc<Node>], plan: &Plan) {
    let Shared { net, kms, history, .. } = &**shared;
    let configured = plan.changes_configuration();
    for (number, node) in nodes.iter().enumerate() {
        net.change(&address(number), Link::heal);
        node.start_plugin();
        if configured {
            // All that may have been written with.
            let [first, other] = [PROVIDER, OTHER].map(|name| Provider::Kms(name.to_owned()));
            node.configure(&[first, other, Provider::Identity]);
        }
        // What it was told wrongly is in its memory for a day.
        let misled = plan
            .events
            .iter()
            .any(|event| event.what == What::Kms { node: number, does: Trouble::UnwrapsWrongly });
        if misled || !node.has_apiserver() {
            tokio::spawn(Arc::clone(node).start_apiserver());
        }
    }
    kms.heal();
    history.push(Is::Healed);
}
