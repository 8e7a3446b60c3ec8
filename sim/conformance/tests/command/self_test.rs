//! Every check can fail, and nothing but its own mutant makes it.

use crate::stage::run;

#[test]
fn every_mutant_is_caught_by_its_check_alone() {
    let ended = run(&["self-test"]);
    assert_eq!(ended.code, 0, "{}{}", ended.said, ended.complained);
    assert!(ended.said.contains("reference all green"), "{}", ended.said);
    assert!(!ended.said.contains("MISSED"), "{}", ended.said);
}

/// Whatever the order, none leaves a rotation under way that the next check takes for its own.
#[test]
fn the_order_of_the_checks_does_not_matter() {
    for seed in ["4", "7"] {
        let slow = ["late-rotation", "late-node", "never-rotates", "encrypt-leads", "flip-flops"];
        let mutants = slow.into_iter().flat_map(|mutant| ["--mutant", mutant]);
        let args: Vec<&str> = ["self-test", "--seed", seed].into_iter().chain(mutants).collect();
        let ended = run(&args);
        assert_eq!(ended.code, 0, "seed {seed}: {}{}", ended.said, ended.complained);
    }
}

#[test]
fn an_unknown_mutant_is_refused() {
    let ended = run(&["self-test", "--mutant", "nothing"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.complained.contains("'nothing' for '--mutant"), "{}", ended.complained);
}
