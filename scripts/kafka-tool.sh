#!/usr/bin/env bash
# Kafka's own command-line tools, from the same jars as scripts/kafka.sh:
#   scripts/kafka-tool.sh topics --bootstrap-server 127.0.0.1:9092 --list
# KAFKA_VERSION picks the version of the tool (4.3.0); MILLRACE_CACHE, where the jars are kept;
# KAFKA_TOOL_JVM, options of Java; KAFKA_TOOL_LOG=info shows what the client is doing.
set -euo pipefail

# shellcheck source=scripts/kafka/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/kafka/lib.sh"

version=${KAFKA_VERSION:-$KAFKA_VERSION_DEFAULT}

usage() {
  cat <<'EOF'
usage: scripts/kafka-tool.sh NAME ARGUMENTS...

  topics  configs  consumer-groups  transactions  get-offsets  delete-records  leader-election
  acls  features  metadata-quorum  log-dirs  reassign-partitions  broker-api-versions
  console-producer  console-consumer  verifiable-producer  verifiable-consumer
  producer-perf-test  consumer-perf-test  e2e-latency  dump-log
  txn-producer    ours: records in a transaction that commits, aborts or hangs (scripts/kafka/TxnProducer.java)

Any other name is taken for a class, for example org.apache.kafka.tools.StreamsResetter.
EOF
}

# Kafka 4 moved some tools from the package `kafka` to `org.apache.kafka.tools`.
moved() {
  case $version in
    3.*) echo "$1" ;;
    *) echo "$2" ;;
  esac
}

class_of() {
  local tools=org.apache.kafka.tools
  case $1 in
    topics) echo $tools.TopicCommand ;;
    configs) echo kafka.admin.ConfigCommand ;;
    consumer-groups) echo $tools.consumer.group.ConsumerGroupCommand ;;
    transactions) echo $tools.TransactionsCommand ;;
    get-offsets) echo $tools.GetOffsetShell ;;
    delete-records) echo $tools.DeleteRecordsCommand ;;
    leader-election) echo $tools.LeaderElectionCommand ;;
    acls) moved kafka.admin.AclCommand $tools.AclCommand ;;
    features) echo $tools.FeatureCommand ;;
    metadata-quorum) echo $tools.MetadataQuorumCommand ;;
    log-dirs) echo $tools.LogDirsCommand ;;
    reassign-partitions) echo $tools.reassign.ReassignPartitionsCommand ;;
    broker-api-versions) moved kafka.admin.BrokerApiVersionsCommand $tools.BrokerApiVersionsCommand ;;
    console-producer) moved kafka.tools.ConsoleProducer $tools.ConsoleProducer ;;
    console-consumer) echo $tools.consumer.ConsoleConsumer ;;
    verifiable-producer) echo $tools.VerifiableProducer ;;
    verifiable-consumer) echo $tools.VerifiableConsumer ;;
    producer-perf-test) echo $tools.ProducerPerformance ;;
    consumer-perf-test) echo $tools.ConsumerPerformance ;;
    e2e-latency) echo $tools.EndToEndLatency ;;
    dump-log) moved kafka.tools.DumpLogSegments $tools.DumpLogSegments ;;
    txn-producer) echo "$kafka_scripts/TxnProducer.java" ;; # Java runs a source file as it is
    *.*) echo "$1" ;;
    *) return 1 ;;
  esac
}

case ${1:-help} in
  help | -h | --help)
    usage
    exit 0
    ;;
esac
class=$(class_of "$1") || { usage >&2; fail "no tool '$1'"; }
shift
libs=$(kafka_libs "$version")
# shellcheck disable=SC2086 # options are words
exec java ${KAFKA_TOOL_JVM:--Xmx512m} -Dorg.slf4j.simpleLogger.defaultLogLevel="${KAFKA_TOOL_LOG:-warn}" \
  -cp "$libs/*" "$class" "$@"
