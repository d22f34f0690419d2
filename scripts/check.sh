#!/usr/bin/env bash
# `npm run check`: from a bare clone to tested. Installs what is missing, builds, and runs every test.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%ds)\n' "$1" "$SECONDS"; }

step 'system packages'
# command or file that must exist, and the Debian package that has it
needs=(
  'command:g++=g++' 'command:cmake=cmake' 'command:ninja=ninja-build' 'command:clang-format=clang-format'
  'file:/usr/include/doctest/doctest.h=doctest-dev'
  'file:/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.a=libopenblas-pthread-dev'
)
missing=()
for need in "${needs[@]}"; do
  what=${need%%=*} package=${need##*=}
  case $what in
    command:*) command -v "${what#command:}" >/dev/null || missing+=("$package") ;;
    file:*) [ -e "${what#file:}" ] || missing+=("$package") ;;
  esac
done
if [ ${#missing[@]} -gt 0 ]; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
  else
    echo "Missing: ${missing[*]}. Please run:  sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
echo 'all there'

step 'npm packages, addon and TypeScript'
npm ci

step 'format and lint'
npm run --silent lint

step 'tests'
npm test
