//! Plans out of a seed.

use std::time::Duration;

mod faults;

use super::node::{OTHER, PROVIDER};
use super::plan::{Event, Gate, Kms, Plan, Provider, What};
use super::random::Stream;
use faults::{Draw, GROUPS, TRANSIT};

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(1800);

/// How long an apiserver runs at most before it is started anew: what it knows in memory hides what cannot be read.
const RUNS: Duration = Duration::from_secs(6 * 3600);

/// How events are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Some kinds of events, drawn anew for each seed, each as often as it happens to be.
    Swarm,
    /// Sockets fail one after another, and come back in another order.
    Swizzle,
    /// Keys change faster than anybody should change them.
    RotationStorm,
    /// Everything starts at once, again and again.
    ColdStart,
    /// Nothing happens.
    Calm,
    /// The product's client and three servers: what a swarm does, and what servers do.
    Transit,
}

impl Profile {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("swarm", Self::Swarm),
        ("swizzle", Self::Swizzle),
        ("rotation-storm", Self::RotationStorm),
        ("cold-start", Self::ColdStart),
        ("calm", Self::Calm),
        ("transit", Self::Transit),
    ];

    /// The one of this seed, of those in which something happens to the simple KMS.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let all = [Self::Swarm, Self::Swizzle, Self::RotationStorm, Self::ColdStart];
        all[usize::try_from(seed % 4).unwrap_or(0)]
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, profile)| *profile)
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, profile)| *profile == self).map_or("", |(name, _)| name)
    }
}

/// How large a plan is to be.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Control-plane nodes.
    pub nodes: usize,
    /// How long it lasts.
    pub lasts: Duration,
}

/// Draws a plan.
#[must_use]
pub fn plan(seed: u64, profile: Profile, size: Size) -> Plan {
    let random = Stream::of(seed, "plan");
    let mut events = Vec::new();
    match profile {
        Profile::Swarm => swarm(&random, size, &GROUPS, &mut events),
        Profile::Transit => swarm(&random, size, &TRANSIT, &mut events),
        Profile::Swizzle => swizzle(&random, size, &mut events),
        Profile::RotationStorm => storm(&random, size, &mut events),
        Profile::ColdStart => cold_start(&random, size, &mut events),
        Profile::Calm => {}
    }
    if profile != Profile::Calm {
        restarts(&random, size, &mut events);
    }
    events.retain(|event: &Event| Duration::from_millis(event.at_ms) < size.lasts);
    events.sort_by_key(|event| event.at_ms);
    let all = ["1.29", "1.31", "1.37"];
    let kms = match profile {
        Profile::Transit if random.chance(25) => Kms::TransitForwarding,
        Profile::Transit => Kms::Transit,
        _ => Kms::Simulated,
    };
    Plan {
        about: String::new(),
        catches: Vec::new(),
        kms,
        seed,
        profile: profile.name().to_owned(),
        nodes: size.nodes,
        versions: (0..size.nodes).map(|_| all[random.index(all.len())].to_owned()).collect(),
        lasts_s: size.lasts.as_secs(),
        // Not less: the configuration has no such period, as a look may take five seconds.
        period_s: [5, 10, 10, 10, 30][random.index(5)],
        objects: 12,
        kept: [0, 24][random.index(2)],
        points: random.chance(50),
        think_ms: [20_000, 120_000, 600_000][random.index(3)],
        events,
    }
}

fn event(at: Duration, what: What) -> Event {
    Event { at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX), what }
}

fn swarm(random: &Stream, size: Size, groups: &[Draw], events: &mut Vec<Event>) {
    // Each group is in it or not; those that are, are so more or less often.
    let mut drawn: Vec<Draw> = Vec::new();
    for group in groups {
        if random.chance(50) {
            let times = 1 + random.index(8);
            drawn.extend(std::iter::repeat_n(*group, times));
        }
    }
    if drawn.is_empty() {
        return;
    }
    let mut at = random.time(SHORT, LONG);
    while at < size.lasts {
        let draw = drawn[random.index(drawn.len())];
        let mut then = at;
        for what in draw(random, random.index(size.nodes), size.nodes) {
            // What comes after many calls comes, now and then, while they are under way.
            let calls = matches!(what, What::Burst { .. } | What::ApiserverRestarted { .. });
            events.push(event(then, what));
            then += if calls && random.chance(50) {
                random.time(Duration::from_millis(1), Duration::from_secs(3))
            } else {
                random.time(SHORT, LONG)
            };
        }
        at += random.time(SHORT, LONG);
    }
}

/// Every apiserver is started anew now and then, whatever else happens.
fn restarts(random: &Stream, size: Size, events: &mut Vec<Event>) {
    for node in 0..size.nodes {
        let mut at = random.time(RUNS / 16, RUNS);
        while at < size.lasts {
            events.push(event(at, What::ApiserverRestarted { node }));
            at += random.time(RUNS / 16, RUNS);
        }
    }
}

fn swizzle(random: &Stream, size: Size, events: &mut Vec<Event>) {
    let mut at = Duration::from_secs(60);
    while at < size.lasts {
        let is = [Gate::Missing, Gate::Refusing, Gate::Mute, Gate::Frozen][random.index(4)];
        let mut nodes: Vec<_> = (0..size.nodes).collect();
        for is in [is, Gate::Open] {
            shuffle(random, &mut nodes);
            for node in &nodes {
                events.push(event(at, What::Socket { node: *node, is }));
                events.push(event(at, What::Cut { node: *node }));
                at += random.time(SHORT, Duration::from_secs(120));
            }
        }
        if random.chance(30) {
            events.push(event(at, What::Rotated));
        }
        at += random.time(Duration::from_secs(60), Duration::from_secs(1200));
    }
}

fn storm(random: &Stream, size: Size, events: &mut Vec<Event>) {
    let mut at = Duration::from_secs(30);
    while at < size.lasts {
        let node = random.index(size.nodes);
        let what = match random.below(12) {
            0..=4 => What::Rotated,
            5 => What::Reinstated,
            6 => What::KmsLag { node, ms: [0, 3_000, 60_000][random.index(3)] },
            7 => What::Rewritten { node },
            8 => What::OldDestroyed,
            9 => What::PluginKilled { node },
            10 => What::ApiserverRestarted { node },
            _ => What::PluginStarted { node },
        };
        events.push(event(at, what));
        at += random.time(Duration::from_millis(50), Duration::from_secs(300));
    }
}

fn cold_start(random: &Stream, size: Size, events: &mut Vec<Event>) {
    let mut at = random.time(SHORT, Duration::from_secs(600));
    while at < size.lasts {
        let mut nodes: Vec<_> = (0..size.nodes).collect();
        shuffle(random, &mut nodes);
        let renamed = random.chance(20);
        for node in nodes {
            let node_at = at + random.time(Duration::from_millis(1), Duration::from_secs(20));
            events.push(event(at, What::PluginKilled { node }));
            events.push(event(at, What::ApiserverRestarted { node }));
            events.push(event(node_at, What::PluginStarted { node }));
            if renamed {
                // As one does who moves to a second name: the old one stays to be read.
                let providers = [OTHER, PROVIDER].map(|name| Provider::Kms(name.to_owned()));
                let [other, first] = providers;
                let both = [vec![first.clone(), other.clone()], vec![other, first]];
                let providers = both[random.index(2)].clone();
                events.push(event(node_at, What::Configured { node, providers }));
            }
        }
        if random.chance(30) {
            events.push(event(at + SHORT, What::Rotated));
        }
        at += random.time(Duration::from_secs(30), LONG);
    }
}

fn shuffle(random: &Stream, nodes: &mut [usize]) {
    for at in (1..nodes.len()).rev() {
        nodes.swap(at, random.index(at + 1));
    }
}
