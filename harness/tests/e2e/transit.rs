//! With the key in a real OpenBao or Vault instead of SoftHSM: the same scenarios, and those that only a
//! server or a cluster of servers has.

mod loses_a_node;
mod rotation;
mod trouble;

use kleidi_harness::{Made, Stage, Summary, on_both};

use crate::run;
use trouble::{outlives_its_token_under_load, says_that_the_server_hangs};

/// All scenarios with a product.
macro_rules! with_transit {
    ($($module:ident $product:ident),+ $(,)?) => {
        $(run!($module, "1.37.2", Kms::Transit(kleidi_harness::Product::$product), [
            encrypts_at_rest,
            survives_the_plugin_dying_under_load,
            recovers_when_the_kms_is_away,
            rotates_to_a_second_key,
            serves_several_apiservers,
        ]);)+
    };
}

with_transit!(openbao_v1_37_2 OpenBao, vault_v1_37_2 Vault);

run!(
    openbao_v1_29_6,
    "1.29.6",
    Kms::Transit(kleidi_harness::Product::OpenBao),
    [
        encrypts_at_rest,
        survives_the_plugin_dying_under_load,
        recovers_when_the_kms_is_away,
        needs_the_authority_filter_before_1_32,
    ]
);

on_both!(outlives_its_token_under_load, says_that_the_server_hangs);

/// Says what came of the calls, and fails if one of them did.
fn none_failed(stage: &Stage, what: &str, calls: &[Made]) {
    let summary = Summary::of(calls);
    stage.say(&format!("{what}: {summary}"));
    let errors: Vec<_> = calls
        .iter()
        .filter_map(|made| Some((made.rpc, made.ended - made.began, made.error.as_ref()?)))
        .collect();
    assert!(errors.is_empty(), "{what}: {summary}: {:#?}", &errors[..errors.len().min(5)]);
}
