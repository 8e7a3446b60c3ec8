# A Go that builds all components. Sourced after lib.sh, not run.

# The newest that builds them all, from the module proxy: one address for Go and its modules.
go_version=1.26.8
declare -A go_sum=(
  [amd64]=30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7
  [arm64]=02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99
)

# Puts a Go that is new enough into PATH.
go_toolchain() {
  export GOTOOLCHAIN=local GOFLAGS= CGO_ENABLED=0
  local have
  have=$(go env GOVERSION 2>/dev/null || echo none)
  if [[ $have == go1.* ]] && (($(cut -d. -f2 <<<"$have" | sed 's/[^0-9].*//') >= 26)); then
    return
  fi
  local at=$cache/go/$go_version
  if [[ ! -x $at/bin/go ]]; then
    debian_packages curl ca-certificates unzip
    say "fetching Go $go_version (found: $have)"
    fetch_go "$at"
  fi
  export PATH=$at/bin:$PATH
}

# fetch_go <directory>: whole or not at all. A shell of its own, whose end takes away what is not whole.
fetch_go() (
  arch=$(dpkg --print-architecture)
  [[ -n ${go_sum[$arch]:-} ]] || die "no pinned Go for $arch: install Go 1.26 or newer, then run this again"
  mkdir -p "${1%/*}"
  aside=$(mktemp -d "$cache/.go.XXXXXX")
  trap 'rm -rf "$aside"' EXIT
  curl -fsSL --retry 3 -o "$aside/go.zip" \
    "https://proxy.golang.org/golang.org/toolchain/@v/v0.0.1-go$go_version.linux-$arch.zip"
  sha256sum --quiet -c - <<<"${go_sum[$arch]}  $aside/go.zip" || die "what the module proxy gave is not Go $go_version"
  unzip -q "$aside/go.zip" -d "$aside"
  # Module archives carry no permissions.
  chmod +x "$aside"/golang.org/*/bin/* "$aside"/golang.org/*/pkg/tool/*/*
  # Another setup may have been faster.
  mv -T "$aside"/golang.org/* "$1" 2>/dev/null || [[ -x $1/bin/go ]]
)
