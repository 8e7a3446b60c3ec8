//! From a Secret in the API of a real kube-apiserver to bytes in a real etcd, through the plugin and
//! SoftHSM, OpenBao or Vault; the same scenarios for every supported version.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod cluster;
mod keeper;
mod scenarios;
mod sealed;
mod transit;
mod writing;

/// A module with one test per scenario, with that kube-apiserver and that KMS.
macro_rules! run {
    ($module:ident, $version:literal, $kms:expr, [$($scenario:ident),+ $(,)?]) => {
        mod $module {
            use crate::keeper::Kms;

            $(#[test]
            fn $scenario() {
                crate::scenarios::$scenario($version, $kms);
            })+
        }
    };
}
pub(crate) use run;

/// All scenarios with SoftHSM.
macro_rules! with_softhsm {
    ($($module:ident $version:literal),+ $(,)?) => {
        $(run!($module, $version, Kms::SoftHsm, [
            encrypts_at_rest,
            survives_the_plugin_dying_under_load,
            recovers_when_the_kms_is_away,
            rotates_to_a_second_key,
            serves_several_apiservers,
            needs_the_authority_filter_before_1_32,
        ]);)+
    };
}

with_softhsm!(v1_29_6 "1.29.6", v1_31_0 "1.31.0", v1_37_2 "1.37.2");

#[test]
fn the_versions_are_those_of_the_harness() {
    assert_eq!(kleidi_harness::components::KUBE_APISERVERS, ["1.29.6", "1.31.0", "1.37.2"]);
}
