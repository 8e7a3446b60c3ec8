//! Broken plugins, apiservers, sockets and operators: each has to be caught by the judge, or the judge is of no
//! use.

mod broken;
pub(super) mod spoiled;

use serde::{Deserialize, Serialize};

use super::generate::Profile;
use super::judge::Invariant;
pub use broken::Broken;

/// What is broken, in every plugin of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mutant {
    /// Each node has a key of its own under one key_id, as where each makes one by its label (the Go kleidi).
    KeyPerNode,
    /// The key is another one after a restart, under the same key_id (the Go kleidi).
    KeyAnewAtStart,
    /// Wraps with the version before and says that it was the latest (the Go kleidi).
    LabelsWithLatest,
    /// Unwraps with the current key alone (the Go kleidi).
    CurrentKeyAlone,
    /// Tells the key that it saw first for ever.
    FirstKeyForEver,
    /// Says that all is well when the KMS cannot be used.
    SwallowsErrors,
    /// Names a key by its material alone, so that one that comes back has its old key_id.
    NamesByMaterial,
    /// Has one name for whatever key is current (the Go kleidi).
    NamesByLabel,
    /// Looks at the KMS again and again where it fails.
    TriesWithoutEnd,
    /// Looks at the KMS whenever it is asked for Status, too.
    LooksForEachStatus,
    /// Has the KMS unwrap again and again what it has unwrapped.
    AsksAgain,
    /// Goes on waiting for the KMS when nobody waits for the answer any more.
    IgnoresDeadlines,
    /// Once the KMS was away, it is so for ever.
    StaysDown,
    /// A task stays behind with each call that the KMS fails.
    LeaksTasks,
    /// Goes on when it is asked to end.
    IgnoresTheEnd,
    /// Panics, now and then.
    Panics,
    /// Gives out a seed with one bit wrong, now and then.
    DamagesSeeds,
    /// Says in its log which seed it is to wrap.
    TellsSeeds,
    /// Answers Encrypt with more than kube-apiserver takes.
    AnswersTooLong,
    /// Has other words for a good health than kube-apiserver knows.
    SaysHealthy,
    /// What is stored is the object itself.
    StoresInClear,
    /// The apiserver takes one object for another.
    MixesObjects,
    /// The apiserver takes what was changed in etcd for what was written.
    OpensAnything,
    /// The operator destroys old keys, and does not look whether they are needed.
    DestroysUnasked,
    /// A process that ends removes the socket of the one that has begun meanwhile.
    RemovesForeignSocket,
    /// Wraps with whatever version transit has, and says that it was the one of the last look.
    LabelsWithObserved,
    /// Asks transit for a version, and does not look which one has wrapped.
    IgnoresTheAnswer,
    /// Takes one answer in a list for another.
    MixesAnswers,
    /// Does not look whether what transit has wrapped can be unwrapped.
    TrustsCiphertexts,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::KeyPerNode,
        Self::KeyAnewAtStart,
        Self::LabelsWithLatest,
        Self::CurrentKeyAlone,
        Self::FirstKeyForEver,
        Self::SwallowsErrors,
        Self::NamesByMaterial,
        Self::NamesByLabel,
        Self::TriesWithoutEnd,
        Self::LooksForEachStatus,
        Self::AsksAgain,
        Self::IgnoresDeadlines,
        Self::StaysDown,
        Self::LeaksTasks,
        Self::IgnoresTheEnd,
        Self::Panics,
        Self::DamagesSeeds,
        Self::TellsSeeds,
        Self::AnswersTooLong,
        Self::SaysHealthy,
        Self::StoresInClear,
        Self::MixesObjects,
        Self::OpensAnything,
        Self::DestroysUnasked,
        Self::RemovesForeignSocket,
        Self::LabelsWithObserved,
        Self::IgnoresTheAnswer,
        Self::MixesAnswers,
        Self::TrustsCiphertexts,
    ];

    /// Whether it is a client of transit that is broken.
    #[must_use]
    pub fn is_of_transit(self) -> bool {
        matches!(
            self,
            Self::LabelsWithObserved
                | Self::IgnoresTheAnswer
                | Self::MixesAnswers
                | Self::TrustsCiphertexts
        )
    }

    /// Whether it is the plugin's service that is broken.
    #[must_use]
    pub fn is_of_service(self) -> bool {
        matches!(
            self,
            Self::AnswersTooLong
                | Self::SaysHealthy
                | Self::LooksForEachStatus
                | Self::IgnoresTheEnd
        )
    }

    /// Whether it is the plugin's backend that is broken, whichever that is.
    #[must_use]
    pub fn is_of_backend(self) -> bool {
        let elsewhere = matches!(
            self,
            Self::StoresInClear
                | Self::MixesObjects
                | Self::OpensAnything
                | Self::DestroysUnasked
                | Self::RemovesForeignSocket
        );
        !elsewhere && !self.is_of_transit() && !self.is_of_service()
    }

    /// In which profile it is looked for with this seed.
    #[must_use]
    pub fn profile(self, seed: u64) -> Profile {
        if self.is_of_transit() { Profile::Transit } else { Profile::of(seed) }
    }

    /// What has to catch it: one of these.
    #[must_use]
    pub fn caught_by(self) -> &'static [Invariant] {
        use Invariant::{
            L1, L2, L3, L4, NoPanic, S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S11, S12,
        };
        match self {
            Self::KeyPerNode | Self::CurrentKeyAlone | Self::DamagesSeeds | Self::MixesAnswers => {
                &[S7]
            }
            Self::KeyAnewAtStart => &[S7, S3],
            Self::LabelsWithLatest | Self::LabelsWithObserved | Self::IgnoresTheAnswer => &[S3],
            Self::TrustsCiphertexts => &[S3, S7],
            Self::FirstKeyForEver => &[L3],
            Self::SwallowsErrors => &[S8],
            Self::NamesByMaterial => &[S4],
            Self::NamesByLabel => &[S5],
            Self::TriesWithoutEnd | Self::LooksForEachStatus | Self::AsksAgain => &[S11],
            Self::IgnoresDeadlines | Self::IgnoresTheEnd => &[L4],
            Self::StaysDown => &[L2],
            Self::LeaksTasks => &[S12],
            Self::Panics => &[NoPanic],
            Self::StoresInClear | Self::TellsSeeds => &[S2],
            Self::AnswersTooLong | Self::SaysHealthy => &[S6],
            Self::MixesObjects => &[S1],
            Self::OpensAnything => &[S10],
            Self::DestroysUnasked => &[S9],
            Self::RemovesForeignSocket => &[L1],
        }
    }
}
