//! Programs that are run to their end.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Seconds after which a program is ended: nothing that is waited for here takes longer.
const PATIENCE: &str = "900";

/// Bytes of a program's complaint that are worth repeating.
const TAIL: usize = 2000;

/// Runs a program; gives what it printed. An error repeats what it complained of.
pub fn run(program: &str, args: &[&str]) -> Result<Vec<u8>, String> {
    feed(program, args, b"")
}

/// The same, as text without space around it.
pub fn text(program: &str, args: &[&str]) -> Result<String, String> {
    run(program, args).map(|output| String::from_utf8_lossy(&output).trim().to_owned())
}

/// The same with something to read.
pub fn feed(program: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    // Without us it ends, too: what it would go on making is being removed then.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "timeout", PATIENCE, program]).args(args);
    execute(command, input).map_err(|error| {
        let args = args.join(" ");
        format!("{program} {}: {error}", args.chars().take(300).collect::<String>())
    })
}

fn execute(mut command: Command, input: &[u8]) -> Result<Vec<u8>, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input says itself why.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(TAIL)..]).into_owned();
    Err(format!("{}: {}", output.status, said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_input_and_complaints() {
        assert_eq!(text("echo", &["one"]).unwrap(), "one");
        assert_eq!(feed("cat", &[], b"two").unwrap(), b"two");
        let error = run("sh", &["-c", "echo three >&2; exit 4"]).unwrap_err();
        assert!(error.contains("three") && error.contains('4'), "{error}");
        assert!(run("kleidi-no-such-program", &[]).is_err());
    }
}
