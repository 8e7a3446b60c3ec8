#!/usr/bin/env bash
# The GitHub Action's step: turns its inputs (INPUT_…, as in action.yml) into the command's flags, and ends as the command
# does. KMS_CONFORMANCE is another binary than the one that the step before has built.

# Without globbing: in some inputs there are several words.
set -efuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=${KMS_CONFORMANCE:-$here/../../target/sim/kms-conformance}
reports=${INPUT_REPORTS:-kms-conformance-reports}

# An input is wrong.
wrong() {
  echo "$1" >&2
  exit 2
}

arguments=()
[[ -n ${INPUT_ENDPOINT-} ]] || wrong 'the input endpoint is missing: wanted unix:///path/to.sock'
for endpoint in $INPUT_ENDPOINT; do
  arguments+=(--endpoint "$endpoint")
done
case ${INPUT_STRICT-} in
  true) arguments+=(--strict) ;;
  '' | false) ;;
  *) wrong "the input strict is $INPUT_STRICT: wanted true or false" ;;
esac
if [[ -n ${INPUT_RUN-} ]]; then
  arguments+=(--run ${INPUT_RUN//,/ })
fi
if [[ -n ${INPUT_SKIP-} ]]; then
  arguments+=(--skip ${INPUT_SKIP//,/ })
fi
for flag in profile known-failing on-rotate on-rotate-back on-stop on-start on-kill on-backend-down \
  on-backend-up on-deny-decrypt on-allow-decrypt print-log rotation-window outage-window \
  timeout hook-timeout deadline wait implementation implementation-version implementation-url; do
  name=${flag^^}
  name=INPUT_${name//-/_}
  if [[ -n ${!name-} ]]; then
    arguments+=("--$flag" "${!name}")
  fi
done

mkdir -p "$reports"
# What is there afterwards is this run's.
rm -f "$reports"/{junit.xml,report.json,report.md}
code=0
"$suite" "${arguments[@]}" --report "junit:$reports/junit.xml" --report "json:$reports/report.json" \
  --report "markdown:$reports/report.md" || code=$?
if [[ -n ${GITHUB_STEP_SUMMARY-} && -s $reports/report.md ]]; then
  cat "$reports/report.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit "$code"
