#!/usr/bin/env bash
# with-kafka.sh COMMAND...: runs COMMAND with a real Kafka named by MILLRACE_TEST_KAFKA and returns its exit code.
# Where that variable is set already, that Kafka is used and left as it is. Else one is started for this run alone, on
# a port and in a folder of its own, and removed afterwards. KAFKA_VERSION, KAFKA_NODES and KAFKA_EXTRA choose it.
# KAFKA_KEEP_LOG=FILE appends Kafka's own log to FILE when COMMAND fails.
set -euo pipefail

# shellcheck source=scripts/kafka/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/kafka/lib.sh"

kafka_sh=$kafka_scripts/../kafka.sh
[ $# -gt 0 ] || fail "name the command to run"
[ -z "${MILLRACE_TEST_KAFKA:-}" ] || exec "$@"

end() {
  local status=$?
  trap - EXIT
  if [ $status -ne 0 ] && [ -n "${KAFKA_KEEP_LOG:-}" ]; then
    cat "$KAFKA_DIR"/node-*.log >>"$KAFKA_KEEP_LOG" 2>/dev/null || true
  fi
  "$kafka_sh" stop --clean || true
  rm -rf "$KAFKA_DIR"
  exit $status
}

KAFKA_DIR=$(mktemp -d "${TMPDIR:-/tmp}/millrace-kafka.XXXXXX")
KAFKA_PORT=auto
export KAFKA_DIR KAFKA_PORT
trap end EXIT
# Without these, bash would leave on a signal and Kafka would stay.
trap 'exit 130' INT
trap 'exit 143' TERM HUP

MILLRACE_TEST_KAFKA=$("$kafka_sh" start)
export MILLRACE_TEST_KAFKA
say "with-kafka.sh: Kafka for this run at $MILLRACE_TEST_KAFKA"
"$@"
