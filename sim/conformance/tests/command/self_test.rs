//! Every check can fail, and nothing but its own mutant makes it.

use crate::stage::run;

#[test]
fn every_mutant_is_caught_by_its_check_alone() {
    let ended = run(&["self-test"]);
    assert_eq!(ended.code, 0, "{}{}", ended.said, ended.complained);
    assert!(ended.said.contains("reference all green"), "{}", ended.said);
    assert!(!ended.said.contains("MISSED"), "{}", ended.said);
}

#[test]
fn an_unknown_mutant_is_refused() {
    let ended = run(&["self-test", "--mutant", "nothing"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.complained.contains("there is no mutant"), "{}", ended.complained);
}
