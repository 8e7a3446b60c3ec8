//! Removes clusters when this process is gone, however it ended: after Ctrl-C or SIGKILL nothing is dropped.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Reads `+ NAME` and `- NAME`, and at the end of its input has those removed that were not taken away. Twice: a
/// container that the daemon was just being asked for appears after the first look. The second time there should be
/// nothing, which is refused.
const SCRIPT: &str = r#"
names=' '
while read -r change name; do
  case $change in
    +) names="$names$name " ;;
    -) case $names in *" $name "*) names="${names%% $name *} ${names#* $name }" ;; esac ;;
  esac
done
for name in $names; do
  echo "kind: $name is removed" >&2
  "$KLEIDI_KIND" down "$name"
done
[ "$names" = ' ' ] || sleep 10
for name in $names; do "$KLEIDI_KIND" down "$name" 2>/dev/null; done
"#;

/// From now on this cluster goes when this process does.
pub fn watch(name: &str) {
    tell('+', name);
}

/// It has been removed, or is to stay.
pub fn release(name: &str) {
    tell('-', name);
}

fn tell(change: char, name: &str) {
    static GUARD: Mutex<Option<Child>> = Mutex::new(None);
    let mut guard = GUARD.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.is_none() {
        *guard = start().ok();
    }
    // Without its guard a run is as good; it only leaves more behind.
    if let Some(stdin) = guard.as_mut().and_then(|guard| guard.stdin.as_mut()) {
        let _ = writeln!(stdin, "{change} {name}");
    }
}

fn start() -> std::io::Result<Child> {
    Command::new("sh")
        .args(["-c", SCRIPT])
        .env("KLEIDI_KIND", std::env::current_exe()?)
        .stdin(Stdio::piped())
        // The terminal's signals are not for it.
        .process_group(0)
        .spawn()
}
