//! Ends what is left running when the process that started it is gone: after Ctrl-C, SIGKILL or an
//! abort nothing is dropped.

use std::fmt::Display;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Reads `+ WHAT` and `- WHAT`, and at the end of its input ends those that were not taken away: numbers are
/// processes, all else containers. Those that start containers go first.
const SCRIPT: &str = r#"
all=' '
while read -r change what; do
  case $change in
    +) all="$all$what " ;;
    -) case $all in *" $what "*) all="${all%% $what *} ${all#* $what }" ;; esac ;;
  esac
done
for what in $all; do
  case $what in *[!0-9]*) ;; *) kill -KILL "$what" ;; esac
done
for what in $all; do
  case $what in *[!0-9]*) docker rm --force "$what" ;; esac
done
"#;

/// From now on the process with this id, or the container with this name, ends with us.
pub(crate) fn watch(what: impl Display) {
    tell('+', what);
}

/// It has ended, or may outlive us.
pub(crate) fn release(what: impl Display) {
    tell('-', what);
}

fn tell(change: char, what: impl Display) {
    static GUARD: Mutex<Option<Child>> = Mutex::new(None);
    let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
    let guard = guard.get_or_insert_with(start);
    if let Some(stdin) = &mut guard.stdin {
        // Without its guard a test is as good; it only leaves more behind.
        let _ = writeln!(stdin, "{change} {what}");
    }
}

fn start() -> Child {
    Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is for us, not for it.
        .process_group(0)
        .spawn()
        .expect("sh can be started")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn kills_what_was_not_released() {
        let mut sleepers: Vec<_> = (0..3)
            .map(|_| Command::new("sleep").arg("1000").spawn().expect("sleep can be started"))
            .collect();
        let mut guard = start();
        let mut stdin = guard.stdin.take().unwrap();
        for sleeper in &sleepers {
            writeln!(stdin, "+ {}", sleeper.id()).unwrap();
        }
        // Twice, and one that it never heard of.
        writeln!(stdin, "- {0}\n- {0}\n- 1", sleepers[1].id()).unwrap();
        drop(stdin);
        guard.wait().unwrap();

        assert!(!sleepers[0].wait().unwrap().success());
        assert!(!sleepers[2].wait().unwrap().success());
        assert!(sleepers[1].try_wait().unwrap().is_none(), "the released one runs");
        sleepers[1].kill().unwrap();
        sleepers[1].wait().unwrap();
    }
}
