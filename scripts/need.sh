#!/usr/bin/env bash
# need.sh NAME...: says of every program that is missing or too old how to get it; fails if there is one.
# Known: cargo nightly cargo-fuzz java mvn python3 node npm
set -euo pipefail

missing=0

lacks() {
  printf 'missing: %s\n' "$*" >&2
  missing=1
}

# Is version $1 (digits and dots) at least $2? Compares major and minor.
at_least() {
  local have_major=${1%%.*} want_major=${2%%.*} have_minor=0 want_minor=0
  case $1 in *.*) have_minor=${1#*.} have_minor=${have_minor%%.*} ;; esac
  case $2 in *.*) want_minor=${2#*.} want_minor=${want_minor%%.*} ;; esac
  [ "${have_major:-0}" -gt "$want_major" ] ||
    { [ "${have_major:-0}" -eq "$want_major" ] && [ "${have_minor:-0}" -ge "$want_minor" ]; }
}

# need PROGRAM LEAST-VERSION HOW-TO-GET-IT VERSION-COMMAND...
need() {
  local program=$1 least=$2 how=$3 version
  shift 3
  if ! command -v "$program" >/dev/null 2>&1; then
    lacks "$program ($least or newer); $how"
    return
  fi
  # The first thing that looks like a version.
  version=$("$@" 2>&1 | grep -Eo '[0-9]+(\.[0-9]+)+' | head -n 1) || version=
  at_least "${version:-0}" "$least" || lacks "$program $least or newer (here: ${version:-unknown}); $how"
}

rust_version() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname "$0")/../Cargo.toml" | head -n 1; }

one() {
  case $1 in
    cargo) need cargo "$(rust_version)" "install Rust with rustup, https://rustup.rs" cargo --version ;;
    nightly) cargo +nightly --version >/dev/null 2>&1 || lacks "a nightly Rust; rustup toolchain install nightly" ;;
    cargo-fuzz) cargo fuzz --version >/dev/null 2>&1 || lacks "cargo-fuzz; cargo install cargo-fuzz" ;;
    java) need java 17 "install a JDK (Debian: apt-get install openjdk-17-jdk-headless)" java -version ;;
    mvn) need mvn 3.6 "install Apache Maven (Debian: apt-get install maven)" mvn -v ;;
    python3)
      need python3 3.8 "install Python 3 (Debian: apt-get install python3-venv)" python3 --version
      python3 -c 'import ensurepip, venv' 2>/dev/null || lacks "Python's venv module (Debian: apt-get install python3-venv)"
      ;;
    node) need node 18 "install Node.js (Debian: apt-get install nodejs npm)" node --version ;;
    npm) need npm 8 "it comes with Node.js (Debian: apt-get install npm)" npm --version ;;
    *) lacks "need.sh does not know '$1'" ;;
  esac
}

for name in "$@"; do one "$name"; done
exit $missing
