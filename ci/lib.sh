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

# Installs packages that are missing, as root or through sudo.
debian_packages() {
  local missing=() package
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null \
    || die "this is not Debian: install what it calls ${missing[*]} in this system's own way, then run this again"
  say "installing the Debian packages ${missing[*]}"
  local as_root=()
  ((EUID == 0)) || as_root=(sudo)
  # The lists of a fresh machine may be absent or name packages that are gone.
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Builds an image with the classic builder, which is everywhere. What that says is of interest if it fails.
docker_build() {
  local said
  said=$(DOCKER_BUILDKIT=0 docker build --quiet "$@" 2>&1) || die "docker build $*: $said"
}

# Says how large an image is.
say_size() {
  say "$1: $(docker image inspect --format '{{.Size}}' "$1" | awk '{ printf "%.1f MB", $1 / 1e6 }')"
}

# The comment at the top of the script.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}
