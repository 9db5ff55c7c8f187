# shellcheck shell=bash
# What kafka.sh, kafka-tool.sh and with-kafka.sh share. Sourced, never run.
# Written for bash 3.2, so that the bash of macOS can run it.

# shellcheck disable=SC2034 # for those who source this
KAFKA_VERSION_DEFAULT=4.3.0
MILLRACE_CACHE=${MILLRACE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace}

kafka_scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "${0##*/}: $*"
  exit 1
}

need_java() {
  command -v java >/dev/null 2>&1 ||
    fail "no 'java' found; install a Java 17 or newer JDK (Debian: apt-get install openjdk-17-jdk-headless)"
}

need_mvn() {
  command -v mvn >/dev/null 2>&1 ||
    fail "no 'mvn' found; install Apache Maven, which fetches Kafka's jars once (Debian: apt-get install maven)"
}

# Prints the folder with the jars of Kafka version $1; fetches them the first time.
kafka_libs() {
  local version=$1
  local libs=$MILLRACE_CACHE/kafka/$version/libs
  need_java
  [ -d "$libs" ] || fetch_libs "$version" "$libs"
  printf '%s\n' "$libs"
}

# Into a folder beside the final one, then one rename: a second start at the
# same time, or one that was interrupted, never sees half of the jars.
fetch_libs() {
  local version=$1 libs=$2 fresh said
  need_mvn
  mkdir -p "${libs%/libs}"
  fresh=$(mktemp -d "${libs%/libs}/fetch.XXXXXX")
  say "fetching the jars of Kafka $version with Maven, once, into $libs"
  if ! said=$(mvn -q -B -f "$kafka_scripts/pom.xml" dependency:copy-dependencies \
    -Dkafka.version="$version" -DincludeScope=runtime -DoutputDirectory="$fresh" 2>&1); then
    rm -rf "$fresh"
    rmdir "${libs%/libs}" 2>/dev/null || true
    say "$said"
    fail "Maven could not fetch Kafka $version (its messages are above); is the version right and the network there?"
  fi
  if ! mv "$fresh" "$libs" 2>/dev/null || [ -d "$libs/${fresh##*/}" ]; then
    # Somebody else was first; theirs are the same jars.
    rm -rf "$fresh" "${libs:?}/${fresh##*/}"
  fi
}
