#!/usr/bin/env bash
# The GitHub Action's step: turns its inputs (INPUT_…, as in action.yml) into the command's flags.
# KMS_CONFORMANCE is another binary than the one that the step before has built.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=${KMS_CONFORMANCE:-$here/../../target/release/kms-conformance}
reports=${INPUT_REPORTS:-kms-conformance-reports}
if [[ -z ${INPUT_ENDPOINT-} ]]; then
  echo 'the input endpoint is missing: wanted unix:///path/to.sock' >&2
  exit 2
fi
mkdir -p "$reports"

arguments=()
for endpoint in $INPUT_ENDPOINT; do
  arguments+=(--endpoint "$endpoint")
done
if [[ ${INPUT_STRICT-} == true ]]; then
  arguments+=(--strict)
fi
for flag in profile known-failing on-rotate on-rotate-back on-stop on-start on-kill on-backend-down \
  on-backend-up on-deny-decrypt on-allow-decrypt print-log rotation-window outage-window \
  timeout hook-timeout deadline implementation implementation-version; do
  name=${flag^^}
  name=INPUT_${name//-/_}
  if [[ -n ${!name-} ]]; then
    arguments+=("--$flag" "${!name}")
  fi
done

code=0
"$suite" "${arguments[@]}" --report "junit:$reports/junit.xml" --report "json:$reports/report.json" \
  --report "markdown:$reports/report.md" || code=$?
if [[ -n ${GITHUB_STEP_SUMMARY-} && -f $reports/report.md ]]; then
  cat "$reports/report.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$code"
