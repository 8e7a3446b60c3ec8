//! From a Secret in the API of a real kube-apiserver to bytes in a real etcd, through the plugin and
//! SoftHSM; the same scenarios for every supported version.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod cluster;
mod scenarios;
mod transit;

/// One test per scenario and version.
macro_rules! for_each_version {
    ($($scenario:ident),+ $(,)?) => {
        for_each_version!(@version v1_29_6 "1.29.6" $($scenario)+);
        for_each_version!(@version v1_31_0 "1.31.0" $($scenario)+);
        for_each_version!(@version v1_37_2 "1.37.2" $($scenario)+);
    };
    (@version $module:ident $version:literal $($scenario:ident)+) => {
        mod $module {
            $(#[test]
            fn $scenario() {
                crate::scenarios::$scenario($version);
            })+
        }
    };
}

for_each_version! {
    encrypts_at_rest,
    survives_the_plugin_dying_under_load,
    recovers_when_the_token_is_away,
    rotates_to_a_second_key,
    serves_several_apiservers,
    needs_the_authority_filter_before_1_32,
}

#[test]
fn the_versions_are_those_of_the_harness() {
    assert_eq!(kleidi_harness::components::KUBE_APISERVERS, ["1.29.6", "1.31.0", "1.37.2"]);
}
