//! What the README says can be pasted into a shell.

use std::process::Command;

use crate::stage::Stage;

fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    std::fs::read_to_string(path).unwrap()
}

/// Runs text in a shell whose PATH begins with `directory`.
fn shell(stage: &Stage, directory: &str, text: &str) -> (bool, String) {
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", text])
        .env("PATH", path)
        .current_dir(stage.path(""))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

#[test]
fn the_first_two_minutes_find_what_they_have_built() {
    let stage = Stage::empty();
    let readme = readme();
    let block = readme.split("## Two minutes\n\n```sh\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    // Builds what is there already.
    let cargo = "#!/bin/sh\nmkdir -p target/release\nprintf '#!/bin/sh\\necho \"ran $*\"' \
                 >target/release/kms-conformance\nchmod +x target/release/kms-conformance\n";
    let cargo = stage.file("cargo", cargo);
    let (_, said) = shell(&stage, "/bin", &format!("chmod +x '{cargo}'"));
    assert_eq!(said, "");
    let (well, said) = shell(&stage, &stage.path("").display().to_string(), block);
    assert!(well && said.starts_with("ran --endpoint unix:///"), "{said}");
}

/// The commands of the worked example until the run of all profiles, and from its end on.
#[test]
fn the_worked_example_works_and_leaves_nothing_running() {
    let stage = Stage::empty();
    let directory = stage.path("ref").display().to_string();
    let readme = readme().replace("/tmp/ref", &directory);
    let block = readme.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let commands: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let whole = commands.iter().position(|line| line.ends_with('\\')).unwrap();
    let (before, after) = (&commands[..whole], &commands[whole + 1..]);
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_kms-conformance"));
    let binaries = binary.parent().unwrap().display().to_string();
    let (_, said) = shell(&stage, &binaries, &before.join("\n"));
    assert!(said.contains("NOT conformant (exit 1)"), "{said}");
    // Without a wait, since `start` has waited.
    let status =
        format!("kms-conformance --endpoint unix://{directory}/b.sock --run status.version");
    let (well, said) = shell(&stage, &binaries, &status);
    let (_, stopped) = shell(&stage, &binaries, &after.join("\n"));
    assert!(well, "{said}");
    for node in ["a", "b"] {
        assert!(!stage.path(&format!("ref/{node}.pid")).exists(), "{node} runs: {stopped}");
    }
}

#[test]
fn to_start_a_reference_that_cannot_serve_is_an_error() {
    let stage = Stage::empty();
    let directory = stage.path("nowhere").display().to_string();
    let ended = crate::stage::run(&["reference", "start", "--dir", &directory]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let directory = stage.file("a.log", "");
    let directory = std::path::Path::new(&directory).parent().unwrap().display().to_string();
    std::fs::create_dir(stage.path("a.sock")).unwrap();
    let ended = crate::stage::run(&["reference", "start", "--dir", &directory]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.complained.contains("a.log"), "{}", ended.complained);
}
