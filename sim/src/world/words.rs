//! What a plan does, in words for the reader.

use super::plan::{Gate, Machine, Provider, Trouble, What};

/// What happens, without saying to which node.
#[must_use]
pub fn words(what: &What) -> String {
    match what {
        What::PluginKilled { .. } => "the plugin is killed".to_owned(),
        What::PluginStopped { .. } => "the plugin is asked to end".to_owned(),
        What::PluginStarted { .. } => "the plugin is started".to_owned(),
        What::ApiserverRestarted { .. } => "the apiserver begins anew".to_owned(),
        What::Socket { is, .. } => format!("the plugin's socket {}", gate(*is)),
        What::Cut { .. } => "connections to the plugin are cut".to_owned(),
        What::HalfClosed { .. } => "connections to the plugin are half closed".to_owned(),
        What::Slow { delay_ms: 0, piece, .. } if *piece >= 1 << 15 => {
            "the way to the plugin is fast again".to_owned()
        }
        What::Slow { delay_ms, piece, .. } => {
            format!("the way to the plugin takes {delay_ms} ms for each {piece} bytes")
        }
        What::Kms { does, .. } => format!("the KMS {}", trouble(*does)),
        What::KmsTakes { ms, .. } => format!("the KMS takes {ms} ms for an answer"),
        What::KmsLag { ms, .. } => format!("the KMS tells of new keys {ms} ms late"),
        What::Rotated => "the key is rotated".to_owned(),
        What::Reinstated => "the key before the current one is current again".to_owned(),
        What::OldDisabled => "old keys may not be used".to_owned(),
        What::OldEnabled => "old keys may be used again".to_owned(),
        What::OldDestroyed => "old keys are destroyed, if nothing needs them".to_owned(),
        What::OldDestroyedUnasked => "old keys are destroyed, needed or not".to_owned(),
        What::Rewritten { .. } => "every object is read and written again".to_owned(),
        What::Burst { .. } => "clients want everything at once".to_owned(),
        What::Flipped { object, .. } => format!("a bit of object {object} in etcd is flipped"),
        What::Swapped { one, other } => format!("objects {one} and {other} in etcd change places"),
        What::SeedsSwapped { one, other } => {
            format!("objects {one} and {other} in etcd get each other's wrapped seeds")
        }
        What::RolledBack { object } => format!("object {object} in etcd is an older one again"),
        What::Server { server, is } => format!("server {server} of transit {}", machine(*is)),
        What::ServerLag { server, ms } => {
            format!("server {server} of transit hears of everything {ms} ms late")
        }
        What::Route { server, is, .. } => format!("the way to server {server} {}", gate(*is)),
        What::SteppedDown => "transit's leader gives up its place".to_owned(),
        What::TokensRevoked => "all tokens are revoked".to_owned(),
        What::KeyMadeAnew => "the key is deleted and made anew: what it wrapped is lost".to_owned(),
        What::BackedUp => "the KMS is backed up".to_owned(),
        What::Restored => "the KMS is restored from the backup".to_owned(),
        What::Configured { providers, .. } => {
            let names = providers.iter().map(|provider| match provider {
                Provider::Kms(name) => name.as_str(),
                Provider::Identity => "identity",
            });
            let names: Vec<_> = names.collect();
            format!("the configuration has the providers {}", names.join(", "))
        }
    }
}

fn gate(is: Gate) -> &'static str {
    match is {
        Gate::Open => "is open again",
        Gate::Missing => "is missing",
        Gate::Refusing => "refuses connections",
        Gate::Mute => "takes connections and says nothing",
        Gate::Frozen => "hangs, with what is connected",
    }
}

fn machine(is: Machine) -> &'static str {
    match is {
        Machine::Up => "serves",
        Machine::Killed => "is killed",
        Machine::Stopped => "is asked to end",
        Machine::Hung => "hangs",
        Machine::Sealed => "is sealed",
        Machine::Failing => "refuses everything",
    }
}

/// What a KMS does in this trouble, to be read after "the KMS".
#[must_use]
pub fn trouble(does: Trouble) -> &'static str {
    match does {
        Trouble::None => "works again",
        Trouble::Unreachable => "cannot be reached",
        Trouble::Hangs => "does not answer",
        Trouble::Sealed => "is sealed",
        Trouble::Throttled => "says that it is asked too much",
        Trouble::Forbidden => "refuses the credentials",
        Trouble::WrapDenied => "unwraps, but does not wrap",
        Trouble::UnwrapDenied => "wraps, but does not unwrap",
        Trouble::WrapsWithPrevious => "wraps with the key before the one asked for",
        Trouble::UnwrapsWrongly => "unwraps something else than was wrapped",
        Trouble::DamagesCiphertexts => "damages what it wraps",
        Trouble::SaysNothing => "says success and nothing else",
        Trouble::Truncates => "cuts its answers in the middle",
    }
}

/// A moment of a run: hours, minutes, seconds.
#[must_use]
pub fn clock(at_ms: u64) -> String {
    let (seconds, millis) = (at_ms / 1000, at_ms % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if millis == 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{hours}:{minutes:02}:{seconds:02}.{millis:03}")
    }
}

/// How long a while is, roughly.
#[must_use]
pub fn roughly(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
