#!/usr/bin/env bash
# tools.sh       installs what the tests with foreign programs need, once; quick when all is there
# tools.sh env   prints the variables by which tests find it: eval "$(scripts/tools.sh env)"
#
# Python and Node packages go into the cache folder (MILLRACE_CACHE). Debian packages are installed only by root.
# What stays missing is named loudly and its tests are skipped by name; under CI=true that is a failure.
set -euo pipefail

# shellcheck source=scripts/kafka/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/kafka/lib.sh"

clients=$(cd "$kafka_scripts/../../tests/clients" && pwd -P)

# program=Debian package
DEBIAN="haproxy=haproxy kcat=kcat mosquitto=mosquitto mosquitto_pub=mosquitto-clients shellcheck=shellcheck"

main() {
  case ${1:-install} in
    install) install ;;
    env) env_lines ;;
    *) fail "no command '$1'; 'tools.sh' installs, 'tools.sh env' prints variables" ;;
  esac
}

install() {
  debian_packages
  install_paho || say "paho-mqtt could not be installed"
  install_mqttjs || say "MQTT.js could not be installed"
  report "$(missing)"
}

report() {
  [ -n "$1" ] || return 0
  say "################################################################"
  say "# NOT INSTALLED: $1"
  say "# the tests that need them will be SKIPPED, each by name"
  say "# Debian: apt-get install $(package_names)"
  say "################################################################"
  [ "${CI:-}" != true ] || fail "under CI=true every tool must be there"
}

# --- Debian packages --------------------------------------------------------

# mosquitto lives in sbin, which is not in everybody's path.
found() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$1" >/dev/null 2>&1; }

missing_packages() {
  local each
  for each in $DEBIAN; do
    found "${each%%=*}" || echo "${each#*=}"
  done
}

package_names() { missing_packages | tr '\n' ' '; }

debian_packages() {
  local wanted
  wanted=$(package_names)
  [ -n "$wanted" ] || return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    return 0
  fi
  say "installing Debian packages: $wanted"
  # shellcheck disable=SC2086 # package names are words
  { quietly apt-get update && without_services quietly apt-get install -y --no-install-recommends $wanted; } ||
    say "apt-get could not install them"
}

# Debian starts what it installs. We want the programs, not daemons that hold ports.
without_services() {
  local policy=/usr/sbin/policy-rc.d status=0
  if [ -e $policy ]; then
    "$@"
    return
  fi
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  "$@" || status=$?
  rm -f $policy
  [ ! -d /run/systemd/system ] || systemctl --quiet disable mosquitto haproxy 2>/dev/null || true
  return $status
}

# Silent when all goes well, everything it said when not.
quietly() {
  local said
  said=$(DEBIAN_FRONTEND=noninteractive "$@" 2>&1 </dev/null) || {
    say "$said"
    return 1
  }
}

# --- Python and Node --------------------------------------------------------

# Named after what they were made from: a changed list makes a new folder.
paho_home() { echo "$MILLRACE_CACHE/clients/paho-$(cksum_of "$clients/paho/requirements.txt")"; }
mqttjs_home() { echo "$MILLRACE_CACHE/clients/mqttjs-$(cksum_of "$clients/mqttjs/package-lock.json")"; }
cksum_of() { cksum <"$1" | cut -d ' ' -f 1; }

install_paho() {
  local home
  home=$(paho_home)
  [ ! -f "$home/ready" ] || return 0
  "$kafka_scripts/../need.sh" python3 || return 1
  say "installing paho-mqtt into $home"
  rm -rf "$home"
  quietly python3 -m venv "$home" &&
    quietly "$home/bin/python" -m pip install --disable-pip-version-check -r "$clients/paho/requirements.txt" &&
    touch "$home/ready"
}

install_mqttjs() {
  local home
  home=$(mqttjs_home)
  [ ! -f "$home/ready" ] || return 0
  "$kafka_scripts/../need.sh" node npm || return 1
  say "installing MQTT.js into $home"
  rm -rf "$home"
  mkdir -p "$home"
  cp "$clients/mqttjs/package.json" "$clients/mqttjs/package-lock.json" "$home/"
  quietly npm ci --prefix "$home" --no-audit --no-fund --ignore-scripts &&
    touch "$home/ready"
}

# --- what tests see ---------------------------------------------------------

# The names of the programs and packages that are not there, on one line.
missing() {
  local list=
  local each
  for each in $DEBIAN; do found "${each%%=*}" || list="$list ${each%%=*}"; done
  [ -f "$(paho_home)/ready" ] || list="$list paho-mqtt"
  [ -f "$(mqttjs_home)/ready" ] || list="$list mqttjs"
  echo "${list# }"
}

env_lines() {
  printf 'export MILLRACE_TEST_MISSING=%q\n' "$(missing)"
  [ ! -f "$(paho_home)/ready" ] || printf 'export MILLRACE_TEST_PYTHON=%q\n' "$(paho_home)/bin/python"
  [ ! -f "$(mqttjs_home)/ready" ] || printf 'export NODE_PATH=%q\n' "$(mqttjs_home)/node_modules"
  # shellcheck disable=SC2016 # the caller's PATH, not ours
  printf 'export PATH="$PATH:/usr/sbin:/usr/local/sbin"\n'
}

main "$@"
