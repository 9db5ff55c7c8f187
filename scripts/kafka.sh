#!/usr/bin/env bash
# A real Apache Kafka on this machine: KRaft, one node or several, no docker.
# `scripts/kafka.sh help` tells the commands and the variables.
set -euo pipefail

# shellcheck source=scripts/kafka/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/kafka/lib.sh"

HOST=127.0.0.1
# A node's controller listens this many ports above its broker.
CONTROLLER_PORT_STEP=10

usage() {
  cat <<'EOF'
usage: scripts/kafka.sh COMMAND

  start            start Kafka, wait until every node answers, print the bootstrap address
  stop [--clean]   stop what start started; --clean also removes the data folder
  status           say what runs; exit 0 when every node answers, 3 when not
  env              print variables for a shell: eval "$(scripts/kafka.sh env)"

  kill N           end node N at once (SIGKILL)
  pause N          stop node N where it stands (SIGSTOP)
  resume N         let a paused node N go on (SIGCONT)
  restart-node N   start node N again, after stopping it if it still runs; waits until it answers
                   (soon after a kill that takes up to 9 s: Kafka first lets the dead node's session run out;
                   KAFKA_EXTRA=broker.session.timeout.ms=3000 at start makes it 3)

variables (start remembers them in the data folder; the other commands need only the port or the folder)
  KAFKA_VERSION        4.3.0
  KAFKA_NODES          1       1 to 9; each is broker and controller
  KAFKA_PORT           9092    node N listens on 127.0.0.1 at KAFKA_PORT + N - 1, its controller 10 above;
                               "auto" picks free ports (give a KAFKA_DIR, by which later commands find it)
  KAFKA_DIR            data, logs and pid files; default ${XDG_CACHE_HOME:-~/.cache}/millrace/kafka-run/PORT
  KAFKA_EXTRA          more lines for server.properties, the last one of a key wins
  KAFKA_JVM            -Xms256m -Xmx512m
  KAFKA_WAIT           60      seconds to wait until the nodes answer
  MILLRACE_CACHE       where jars are kept; default ${XDG_CACHE_HOME:-~/.cache}/millrace
EOF
}

main() {
  command=${1:-help}
  [ $# -eq 0 ] || shift
  settings
  case $command in
    kill | pause | resume | restart-node) check_node "${1:-}" ;;
  esac
  case $command in
    start) start ;;
    stop) stop "${1:-}" ;;
    status) status ;;
    env) env_lines ;;
    kill) kill_node "$1" ;;
    pause) signal_node STOP "$1" ;;
    resume) signal_node CONT "$1" ;;
    restart-node) restart_node "$1" ;;
    help | -h | --help) usage ;;
    *) fail "no command '$command'; 'kafka.sh help' lists them" ;;
  esac
}

# --- settings ---------------------------------------------------------------

settings() {
  port=${KAFKA_PORT:-9092}
  dir=${KAFKA_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace/kafka-run/$port}
  case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
  version=${KAFKA_VERSION:-$KAFKA_VERSION_DEFAULT}
  nodes=${KAFKA_NODES:-1}
  jvm=${KAFKA_JVM:--Xms256m -Xmx512m}
  wait_s=${KAFKA_WAIT:-60}
  [ ! -f "$dir/cluster" ] || recall
  [ "$port" != auto ] || choose_port
  case $port in '' | *[!0-9]*) fail "KAFKA_PORT must be a number, not '$port'" ;; esac
  case $nodes in [1-9]) ;; *) fail "KAFKA_NODES must be 1 to 9, not '$nodes'" ;; esac
}

# What an earlier start wrote down is what the folder is. To start it as
# something else is a mistake; every other command goes by what is there.
recall() {
  local key value
  while IFS='=' read -r key value; do
    case $key in
      version) same KAFKA_VERSION "$value"; version=$value ;;
      nodes) same KAFKA_NODES "$value"; nodes=$value ;;
      port) same KAFKA_PORT "$value"; port=$value ;;
      cluster_id) cluster_id=$value ;;
    esac
  done <"$dir/cluster"
}

same() {
  local asked=${!1:-$2}
  [ "$command" != start ] || [ "$asked" = "$2" ] || [ "$asked" = auto ] ||
    fail "$dir was made with $1=$2, not $asked; use another KAFKA_DIR, or 'kafka.sh stop --clean' it first"
}

# Below the ports that systems give to outgoing connections, and away from 9092.
choose_port() {
  case $command in
    start) ;;
    env) fail "nothing was started in $dir" ;;
    *) port=0 && return ;; # nothing was started, so nothing is looked for there
  esac
  [ -n "${KAFKA_DIR:-}" ] || fail "KAFKA_PORT=auto needs a KAFKA_DIR, or nobody could find this Kafka again"
  port=$((20000 + RANDOM % 600 * 20))
  while [ -n "$(taken_port)" ]; do port=$((20000 + RANDOM % 600 * 20)); done
}

remember() {
  # 16 random bytes in Kafka's alphabet; a leading '-' would look like an option.
  cluster_id=M$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n' | cut -c 2-22)
  printf '%s\n' "version=$version" "nodes=$nodes" "port=$port" "cluster_id=$cluster_id" >"$dir/cluster"
}

check_node() {
  case $1 in
    [1-9]) [ "$1" -le "$nodes" ] || fail "there is no node $1: this cluster has $nodes" ;;
    *) fail "name a node: 1 to $nodes" ;;
  esac
}

all_nodes() { seq 1 "$nodes"; }
broker_port() { echo $((port + $1 - 1)); }
controller_port() { echo $((port + $1 - 1 + CONTROLLER_PORT_STEP)); }

# A comma between what the function $1 prints for each node.
listed() {
  local id list=
  for id in $(all_nodes); do list=$list,$("$1" "$id"); done
  printf '%s\n' "${list#,}"
}

bootstrap_of() { echo "$HOST:$(broker_port "$1")"; }
voter_of() { echo "$1@$HOST:$(controller_port "$1")"; }
bootstrap() { listed bootstrap_of; }

# --- commands ---------------------------------------------------------------

start() {
  local id last
  if [ -n "$(running_nodes)" ]; then
    already_running
    return
  fi
  libs=$(kafka_libs "$version")
  mkdir -p "$dir"
  ports_are_free
  [ -f "$dir/cluster" ] || remember
  for id in $(all_nodes); do prepare_node "$id"; done
  format_nodes
  for id in $(all_nodes); do launch_node "$id"; done
  for id in $(all_nodes); do
    if ! wait_for_node "$id"; then
      last=$(tail -n 15 "$dir/node-$id.log")
      stop --now
      fail "node $id did not get ready; the end of $dir/node-$id.log:"$'\n'"$last"
    fi
  done
  bootstrap
}

already_running() {
  local count
  count=$(running_nodes | wc -l)
  [ "$count" -eq "$nodes" ] ||
    fail "only $((count)) of $nodes nodes run in $dir; use restart-node for the others, or stop"
  say "already running: Kafka $version in $dir"
  bootstrap
}

stop() {
  local id left
  case ${1:-} in
    '' | --now | --clean) ;;
    *) fail "stop takes --clean or nothing, not '$1'" ;;
  esac
  # A paused node cannot obey. Data that is thrown away needs no clean end.
  for id in $(running_nodes); do
    if [ -n "${1:-}" ]; then
      signal_node KILL "$id"
    else
      signal_node TERM "$id"
      signal_node CONT "$id"
    fi
  done
  # The last nodes of several cannot hand their leaders over to anybody: they would wait for minutes.
  if ! wait_for_end 100; then
    for id in $(running_nodes); do signal_node KILL "$id"; done
    wait_for_end 100 || true
  fi
  left=$(running_nodes | tr '\n' ' ')
  [ -z "$left" ] || fail "node $left would not end"
  rm -f "$dir"/node-*.pid
  [ "${1:-}" != --clean ] || clean
}

# Only a folder that start made is removed, and only what start put there.
clean() {
  [ -f "$dir/cluster" ] || return 0
  rm -rf "$dir"/node-[1-9] "$dir"/node-[1-9].* "$dir/cluster"
  rmdir "$dir" 2>/dev/null || say "kept $dir: something else is in it"
}

status() {
  local id pid seen state=0
  for id in $(all_nodes); do
    if ! pid=$(node_pid "$id"); then
      say "node $id: not running"
      state=3
      continue
    fi
    seen=$(nodes_seen_by "$id")
    say "node $id: pid $pid, $(bootstrap_of "$id"), $(sight "$seen")"
    [ "$seen" = "$nodes" ] || state=3
  done
  [ $state -ne 0 ] || bootstrap
  return $state
}

sight() {
  case $1 in
    0) echo "does not answer" ;;
    "$nodes") echo "sees all $nodes" ;;
    *) echo "sees $1 of $nodes" ;;
  esac
}

env_lines() {
  printf 'export %s=%q\n' \
    MILLRACE_TEST_KAFKA "$(bootstrap)" KAFKA_DIR "$dir" KAFKA_VERSION "$version" \
    KAFKA_PORT "$port" KAFKA_NODES "$nodes"
}

kill_node() {
  signal_node KILL "$1"
  wait_for_end 50 "$1" || fail "node $1 would not end"
}

restart_node() {
  [ -f "$dir/node-$1/server.properties" ] || fail "nothing was started in $dir"
  if node_pid "$1" >/dev/null; then
    signal_node TERM "$1"
    signal_node CONT "$1"
    wait_for_end 100 "$1" || kill_node "$1"
  fi
  libs=$(kafka_libs "$version")
  launch_node "$1"
  wait_for_node "$1" any ||
    fail "node $1 did not get ready; see $dir/node-$1.log"
  bootstrap_of "$1"
}

# --- processes --------------------------------------------------------------

# Marks a node's own command line, so that a pid file left over from before a
# reboot can never make us signal somebody else's process.
node_mark() { printf '%s\n' "-Dmillrace.kafka.node=$dir/node-$1"; }

# Prints the pid of node $1, if it runs.
node_pid() {
  local pid command
  [ -f "$dir/node-$1.pid" ] || return 1
  pid=$(cat "$dir/node-$1.pid")
  [ -n "$pid" ] || return 1
  command=$(ps -ww -p "$pid" -o args= 2>/dev/null) || return 1
  case $command in
    *"$(node_mark "$1") "*) printf '%s\n' "$pid" ;;
    *) return 1 ;;
  esac
}

running_nodes() {
  local id
  for id in $(all_nodes); do
    if node_pid "$id" >/dev/null; then echo "$id"; fi
  done
}

signal_node() {
  local pid
  pid=$(node_pid "$2") || fail "node $2 does not run"
  kill -s "$1" "$pid"
}

# Waits $1 tenths of a second until node $2, or every node, has ended.
wait_for_end() {
  local tenths=$1
  while [ "$tenths" -gt 0 ]; do
    if [ -n "${2:-}" ]; then
      node_pid "$2" >/dev/null || return 0
    else
      [ -n "$(running_nodes)" ] || return 0
    fi
    sleep 0.1
    tenths=$((tenths - 1))
  done
  return 1
}

launch_node() {
  # Java unpacks its compression libraries there; a killed node would leave them in /tmp.
  rm -rf "$dir/node-$1/tmp"
  mkdir -p "$dir/node-$1/tmp"
  # stdin, stdout and stderr are all let go of: whoever reads our output must not wait for Kafka's end.
  # shellcheck disable=SC2046,SC2086 # options are words
  nohup java $jvm -XX:-UsePerfData "$(node_mark "$1")" -Djava.io.tmpdir="$dir/node-$1/tmp" $(logging info) \
    -cp "$libs/*" kafka.Kafka "$dir/node-$1/server.properties" \
    </dev/null >>"$dir/node-$1.log" 2>&1 &
  echo $! >"$dir/node-$1.pid"
  # Until java has taken the shell's place, the process does not bear the mark by which it is known.
  until node_pid "$1" >/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.02; done
}

logging() {
  echo "-Dorg.slf4j.simpleLogger.defaultLogLevel=$1" \
    -Dorg.slf4j.simpleLogger.showDateTime=true \
    -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS
}

# --- readiness --------------------------------------------------------------

ports_are_free() {
  local taken
  taken=$(taken_port)
  [ -z "$taken" ] || fail "port $taken is taken by another program; choose another KAFKA_PORT"
}

# Prints the first of our ports on which somebody listens, if there is one.
taken_port() {
  local id each
  for id in $(all_nodes); do
    for each in "$(broker_port "$id")" "$(controller_port "$id")"; do
      if (exec 3<>"/dev/tcp/$HOST/$each") 2>/dev/null; then
        echo "$each"
        return
      fi
    done
  done
}

# Ready is: node $1 answers and knows of all nodes. With "any", that it answers
# and has registered itself is enough, because others may be down on purpose.
wait_for_node() {
  local seen deadline=$((SECONDS + wait_s))
  while [ $SECONDS -lt $deadline ]; do
    node_pid "$1" >/dev/null || return 1
    seen=$(nodes_seen_by "$1")
    if [ "$seen" = "$nodes" ]; then return 0; fi
    if [ "${2:-}" = any ] && [ "$seen" -ge 1 ]; then return 0; fi
    sleep 0.1
  done
  return 1
}

# Asks node $1 for its metadata and prints how many live brokers it names, 0
# when it does not answer. The request is written out by hand because a Java
# client would take longer to start than Kafka itself.
nodes_seen_by() {
  (
    exec 3<>"/dev/tcp/$HOST/$(broker_port "$1")" || exit 1
    # size 14 | api key 3, version 1 | correlation id 1 | client id "" | no kafka topics
    printf '\0\0\0\016\0\3\0\1\0\0\0\1\0\0\0\0\0\0' >&3
    read_byte_12
  ) 2>/dev/null || echo 0
}

# The answer begins: size, correlation id, number of brokers, four bytes each.
read_byte_12() {
  local LC_ALL=C byte='' position=0
  while [ $position -lt 12 ]; do
    # A zero byte ends the read and leaves the variable empty, which is right.
    IFS= read -r -d '' -n 1 -t 2 byte <&3 || { echo 0; return; }
    position=$((position + 1))
  done
  if [ -z "$byte" ]; then echo 0; else printf '%d\n' "'$byte"; fi
}

# --- a node's files ---------------------------------------------------------

# Configuration and log anew at each start.
prepare_node() {
  mkdir -p "$dir/node-$1"
  properties "$1" >"$dir/node-$1/server.properties"
  : >"$dir/node-$1.log"
}

# The data is formatted once, all nodes side by side.
format_nodes() {
  local id each running=
  for id in $(all_nodes); do
    [ ! -f "$dir/node-$id/data/meta.properties" ] || continue
    # shellcheck disable=SC2046 # options are words
    java -Xmx128m -XX:TieredStopAtLevel=1 -XX:-UsePerfData $(logging warn) -cp "$libs/*" kafka.tools.StorageTool \
      format -t "$cluster_id" -c "$dir/node-$id/server.properties" >>"$dir/node-$id.log" 2>&1 &
    running="$running $id:$!"
  done
  for each in $running; do
    wait "${each#*:}" ||
      fail "node ${each%%:*} could not be formatted:"$'\n'"$(head -n 15 "$dir/node-${each%%:*}.log")"
  done
}

properties() {
  local replicas=$nodes in_sync=1
  [ "$replicas" -le 3 ] || replicas=3
  [ "$replicas" -lt 3 ] || in_sync=2
  cat <<EOF
process.roles=broker,controller
node.id=$1
controller.quorum.voters=$(listed voter_of)
listeners=PLAINTEXT://$HOST:$(broker_port "$1"),CONTROLLER://$HOST:$(controller_port "$1")
advertised.listeners=PLAINTEXT://$HOST:$(broker_port "$1")
controller.listener.names=CONTROLLER
log.dirs=$dir/node-$1/data

# Replicas as far as there are nodes. A kafka topic exists only when somebody created it.
auto.create.topics.enable=false
default.replication.factor=$replicas
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$replicas
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$in_sync
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$in_sync

# Quick to start, quick to answer: a developer waits.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000

# Compaction and retention happen within seconds of being due, so that tests can wait for them.
log.initial.task.delay.ms=500
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=1000
log.cleaner.backoff.ms=500
log.cleaner.dedupe.buffer.size=16777216
EOF
  [ -z "${KAFKA_EXTRA:-}" ] || printf '\n# KAFKA_EXTRA\n%s\n' "$KAFKA_EXTRA"
}

main "$@"
