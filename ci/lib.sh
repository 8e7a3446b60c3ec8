# What the scripts of this directory share. Sourced, not run.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kleidi
started=$EPOCHSECONDS

# One line of progress, with the minutes since the start.
say() {
  local passed=$((EPOCHSECONDS - started))
  printf '\033[1m[%2d:%02d]\033[0m %s\n' $((passed / 60)) $((passed % 60)) "$*" >&2
}

# Ends with what was attempted and what to do.
die() {
  printf 'ci: %s\n' "$*" >&2
  exit 1
}

need_rust() {
  command -v cargo >/dev/null \
    || die 'Rust is missing: install it with rustup (https://rustup.rs), then run this again'
  command -v cc >/dev/null \
    || die 'a C linker is missing: apt-get install gcc libc6-dev, then run this again'
}

# The comment at the top of the script.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}
