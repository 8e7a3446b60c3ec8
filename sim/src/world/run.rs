//! Plays a plan.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::history::{History, Is, Record};
use super::kms;
use super::mutant::Mutant;
use super::net::{Link, Net};
use super::node::{Node, Shared};
use super::plan::{Plan, What};
use super::plugin::address;
use super::store::{Store, record};
use crate::edges::Clock;
use crate::time::Time;

/// How long all apiservers have to be good again after everything is healed: grpc-go waits 144 s between
/// two attempts to connect at most, and a poll comes each 10 s.
pub const HEALS_IN: Duration = Duration::from_secs(144 + 3 + 10 + 10);

/// When a simulated run begins, as a date.
const BEGIN: Time = Time(Duration::from_secs(1_800_000_000));

/// Plays it from beginning to end: what happened.
pub fn run(plan: &Plan, mutant: Option<Mutant>) -> Result<Vec<Record>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("there is no runtime: {error}"))?;
    runtime.block_on(play(Arc::new(plan.clone()), mutant))
}

async fn play(plan: Arc<Plan>, mutant: Option<Mutant>) -> Result<Vec<Record>, String> {
    let history = History::begin();
    let begin = Instant::now();
    let shared = Arc::new(Shared {
        net: Net::default(),
        kms: kms::new(&plan, Arc::clone(&history)),
        store: Store::new(plan.objects),
        history: Arc::clone(&history),
        clock: Clock::at(BEGIN),
        seed: plan.seed,
        period: Duration::from_secs(plan.period_s),
        mutant,
    });
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
    }
    sleep_until(begin + plan.lasts()).await;
    for client in clients.drain(..) {
        client.abort();
    }
    heal(&shared, &nodes);
    sleep(HEALS_IN + Duration::from_secs(plan.period_s)).await;
    for node in &nodes {
        node.look().await;
        node.read_all(plan.objects).await;
        node.write(0);
    }
    // And all of it once more, by processes that know nothing: what was in their memory hides what is lost.
    for node in &nodes {
        node.kill_plugin();
        node.start_plugin();
        Arc::clone(node).start_apiserver().await;
    }
    sleep(Duration::from_secs(30)).await;
    for node in &nodes {
        node.look().await;
        node.read_all(plan.objects).await;
    }
    history.push(Is::Current {
        key_id: shared.kms.id_of(shared.kms.current()).map(|id| id.to_string()),
    });
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    history.push(Is::Tasks { count: tasks });
    Ok(history.take())
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
        // As an operator is told to: when nothing in etcd is under an old key any more, by its key_id.
        What::OldDestroyed => {
            let current = kms.id_of(kms.current()).map(|id| id.fingerprint());
            let under_current = |value: &[u8]| {
                let Some(record) = record(value) else { return true };
                let id = record.key_id.parse::<kleidi::key_id::KeyId>();
                id.is_ok_and(|id| Some(id.fingerprint()) == current)
            };
            let wrapping = nodes.iter().all(|node| node.wraps_with(current));
            if wrapping && store.all().iter().all(|(_, stored)| under_current(&stored.value)) {
                kms.destroy_old();
            }
        }
        What::Rewritten { node } => {
            let (node, objects) = (Arc::clone(&nodes[*node]), plan.objects);
            tokio::spawn(async move {
                for object in 0..objects {
                    node.rewrite(object).await;
                }
            });
        }
        What::Flipped { object, bit } => store.flip(*object % plan.objects, *bit),
        What::Swapped { one, other } => store.swap(*one % plan.objects, *other % plan.objects),
        What::Configured { node, providers } => nodes[*node].configure(providers),
    }
}

/// Ends all faults.
fn heal(shared: &Arc<Shared>, nodes: &[Arc<Node>]) {
    let Shared { net, kms, history, .. } = &**shared;
    for (number, node) in nodes.iter().enumerate() {
        net.change(&address(number), Link::heal);
        node.start_plugin();
        if !node.has_apiserver() {
            tokio::spawn(Arc::clone(node).start_apiserver());
        }
    }
    kms.heal();
    history.push(Is::Healed);
}
