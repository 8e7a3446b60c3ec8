//! What a report says was seen, was.

use crate::stage::Stage;

#[test]
fn a_call_that_was_given_up_is_no_refusal() {
    let stage = Stage::reference(Some("encrypt-hangs-in-outage"));
    let (down, up) = (stage.hook("down"), stage.hook("up"));
    let hooks = ["--on-backend-down", &down, "--on-backend-up", &up];
    let limits = ["--timeout", "300ms", "--outage-window", "5s"];
    let ended = stage.check(&[&["--run", "outage.encrypt-honest"], &hooks[..], &limits].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.said.contains("refused with {}; "), "{}", ended.said);
    assert!(!ended.said.contains("; 0 got no answer"), "{}", ended.said);
}

#[test]
fn an_endpoint_that_is_gone_is_said() {
    let stage = Stage::reference(None);
    let start = format!(
        "{} --name b --lifeline '{}'",
        stage.hook("start"),
        stage.path("lifeline").display()
    );
    let started = std::process::Command::new("sh").args(["-c", &start]).status().unwrap();
    assert!(started.success(), "{started}");
    let other = format!("unix://{}", stage.path("b.sock").display());
    let gone = format!("{} && {} --name b", stage.hook("rotate"), stage.hook("kill"));
    let replicas = ["--endpoint", &other, "--on-rotate", &gone, "--rotation-window", "1s"];
    let ended = stage.check(&[&["--run", "replicas.converge"], &replicas[..]].concat());
    assert!(ended.said.contains("1 SHOULD failed"), "{ended:?}");
    let says = format!("what was seen last: cannot connect to {other}");
    assert!(ended.said.contains(&says), "{}", ended.said);
}
