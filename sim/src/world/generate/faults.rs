//! What can go wrong: groups of faults, of which a swarm has some.

use crate::world::node::{OTHER, PROVIDER};
use crate::world::plan::{Gate, Machine, Provider, SERVERS, Trouble, What};
use crate::world::random::Stream;

/// What happens one after another on a node, of so many, mostly a fault and its end.
pub(super) type Draw = fn(&Stream, usize, usize) -> Vec<What>;

/// So many objects may be changed behind the apiservers' backs.
const OBJECTS: usize = 12;

/// The groups of faults; a swarm has some of them.
pub(super) const GROUPS: [Draw; 22] = [
    |_, node, _| vec![What::PluginKilled { node }, What::PluginStarted { node }],
    |_, node, _| vec![What::PluginStopped { node }, What::PluginStarted { node }],
    |_, node, _| vec![What::ApiserverRestarted { node }],
    |random, node, _| {
        let is = [Gate::Missing, Gate::Refusing, Gate::Mute, Gate::Frozen][random.index(4)];
        vec![What::Socket { node, is }, What::Socket { node, is: Gate::Open }]
    },
    |random, node, _| {
        let half = random.chance(50);
        vec![if half { What::HalfClosed { node } } else { What::Cut { node } }]
    },
    |random, node, _| {
        let delay_ms = [0, 20, 700, 1400][random.index(4)];
        let piece = [1 << 16, 1, 9, 100][random.index(4)];
        let well = What::Slow { node, delay_ms: 0, piece: 1 << 16 };
        vec![What::Slow { node, delay_ms, piece }, well]
    },
    |random, node, _| {
        let all = [
            Trouble::Unreachable,
            Trouble::Hangs,
            Trouble::Sealed,
            Trouble::Throttled,
            Trouble::Forbidden,
            Trouble::WrapDenied,
            Trouble::UnwrapDenied,
            Trouble::WrapsWithPrevious,
        ];
        let does = all[random.index(all.len())];
        vec![What::Kms { node, does }, What::Kms { node, does: Trouble::None }]
    },
    |random, node, _| {
        let ms = [400, 1200, 2400, 2600, 4900, 5100][random.index(6)];
        vec![What::KmsTakes { node, ms }, What::KmsTakes { node, ms: 2 }]
    },
    |random, node, _| {
        let ms = [100, 5_000, 120_000][random.index(3)];
        vec![What::KmsLag { node, ms }, What::KmsLag { node, ms: 0 }]
    },
    |_, _, _| vec![What::Rotated],
    // As the manual has a migration.
    |_, node, _| vec![What::Rewritten { node }, What::OldDestroyed],
    |_, _, _| vec![What::OldDisabled, What::OldEnabled],
    |random, _, _| {
        let [one, other] = [random.index(OBJECTS), random.index(OBJECTS)];
        vec![match random.below(4) {
            0 => What::Flipped { object: one, bit: random.index(4096) },
            1 => What::Swapped { one, other },
            2 => What::SeedsSwapped { one, other },
            _ => What::RolledBack { object: one },
        }]
    },
    |_, node, _| vec![What::Burst { node }],
    // A rotation while a node cannot see it.
    |_, node, _| {
        let does = Trouble::Unreachable;
        vec![
            What::Kms { node, does },
            What::Rotated,
            What::Kms { node, does: Trouble::None },
            What::ApiserverRestarted { node },
        ]
    },
    // A lie, just when somebody asks.
    |_, node, _| {
        vec![
            What::Rotated,
            What::Kms { node, does: Trouble::WrapsWithPrevious },
            What::ApiserverRestarted { node },
            What::Kms { node, does: Trouble::None },
        ]
    },
    // A KMS that is away just when somebody asks.
    |random, node, _| {
        let does = [Trouble::Hangs, Trouble::Unreachable, Trouble::Throttled][random.index(3)];
        vec![
            What::Kms { node, does },
            What::Burst { node },
            What::ApiserverRestarted { node },
            What::Kms { node, does: Trouble::None },
        ]
    },
    // As one does who starts to encrypt, or gives it up for a while.
    |_, node, _| {
        let [first, other] = names();
        let clear = vec![Provider::Identity, first.clone(), other.clone()];
        let kms = vec![first, other, Provider::Identity];
        vec![What::Configured { node, providers: clear }, What::Configured { node, providers: kms }]
    },
    // A plugin that is in a loop of ends.
    |_, node, _| {
        let one = [What::PluginKilled { node }, What::PluginStarted { node }];
        [one.clone(), one.clone(), one].concat()
    },
    // What an apiserver has been told wrongly it believes for a day, unless it is started anew.
    |_, node, _| {
        let does = Trouble::UnwrapsWrongly;
        vec![
            What::Kms { node, does },
            What::Burst { node },
            What::Kms { node, does: Trouble::None },
            What::ApiserverRestarted { node },
        ]
    },
    // A plugin or a connection that ends just when much is asked, of a KMS that takes its time.
    |random, node, _| {
        let ends = [
            What::PluginStopped { node },
            What::PluginKilled { node },
            What::Cut { node },
            What::HalfClosed { node },
        ];
        vec![
            What::KmsTakes { node, ms: [400, 1200, 2400][random.index(3)] },
            What::ApiserverRestarted { node },
            ends[random.index(ends.len())].clone(),
            What::PluginStarted { node },
            What::KmsTakes { node, ms: 2 },
        ]
    },
    // A provider gets another name: first all can read what is under it, then all write so, and back.
    |_, _, nodes| {
        let [first, other] = names();
        let orders =
            [[first.clone(), other.clone()], [other.clone(), first.clone()], [first, other]];
        let all = |order: [Provider; 2]| {
            let providers = [&order[..], &[Provider::Identity]].concat();
            (0..nodes).map(move |node| What::Configured { node, providers: providers.clone() })
        };
        orders.into_iter().flat_map(all).collect()
    },
];

/// The same with transit: what happens to plugins and apiservers, and what servers and the ways to them do.
pub(super) const TRANSIT: [Draw; 28] = [
    GROUPS[0],
    GROUPS[1],
    GROUPS[2],
    GROUPS[3],
    GROUPS[6],
    GROUPS[7],
    GROUPS[9],
    GROUPS[10],
    GROUPS[11],
    GROUPS[12],
    GROUPS[13],
    GROUPS[14],
    GROUPS[15],
    GROUPS[16],
    GROUPS[17],
    GROUPS[18],
    GROUPS[19],
    GROUPS[20],
    GROUPS[21],
    // What only a server can answer, just when somebody asks.
    |random, node, _| {
        let all = [Trouble::DamagesCiphertexts, Trouble::SaysNothing, Trouble::Truncates];
        vec![
            What::Kms { node, does: all[random.index(all.len())] },
            What::Rotated,
            What::ApiserverRestarted { node },
            What::Kms { node, does: Trouble::None },
        ]
    },
    // A restored key is rotated, so that there are two of one number.
    |_, node, _| {
        vec![
            What::BackedUp,
            What::Rotated,
            What::ApiserverRestarted { node },
            What::Restored,
            What::Rotated,
            What::ApiserverRestarted { node },
        ]
    },
    |random, _, _| {
        let server = random.index(SERVERS);
        let all =
            [Machine::Killed, Machine::Stopped, Machine::Hung, Machine::Sealed, Machine::Failing];
        let is = all[random.index(all.len())];
        vec![What::Server { server, is }, What::Server { server, is: Machine::Up }]
    },
    |random, _, _| {
        let server = random.index(SERVERS);
        let ms = [150, 350, 2_000, 30_000][random.index(4)];
        vec![What::ServerLag { server, ms }, What::ServerLag { server, ms: 40 }]
    },
    |random, node, _| {
        let server = random.index(SERVERS);
        let is = [Gate::Missing, Gate::Refusing, Gate::Mute, Gate::Frozen][random.index(4)];
        vec![What::Route { node, server, is }, What::Route { node, server, is: Gate::Open }]
    },
    |_, _, _| vec![What::SteppedDown],
    |_, _, _| vec![What::TokensRevoked],
    |_, _, _| vec![What::KeyMadeAnew],
    |_, _, _| vec![What::BackedUp, What::Restored],
];

/// Both names of the plugin.
fn names() -> [Provider; 2] {
    [PROVIDER, OTHER].map(|name| Provider::Kms(name.to_owned()))
}
