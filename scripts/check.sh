#!/usr/bin/env bash
# `npm run check`: from a bare clone to tested. Installs what is missing, builds, and runs every test.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%ds)\n' "$1" "$SECONDS"; }

step 'system packages'
# command or file that must exist, and the Debian package that has it
needs=(
  'command:g++=g++' 'command:cmake=cmake' 'command:ninja=ninja-build' 'command:clang-format=clang-format'
  'command:chromium=chromium'
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

# Two architectures for every change, which is most of the difference between 5 and 15 minutes; a release takes all
# (CUDAARCHS='75-real;80-real;86-real;89-real;90-real;100-real;120').
export CUDAARCHS=${CUDAARCHS:-80-real;90}

step 'npm packages, addon and TypeScript'
npm ci

if command -v nvcc >/dev/null; then
  step 'CUDA kernels: registers, spills, vector access'
  npm run --silent kernels:report -- --check --arch 90 | tail -1
fi

step 'format and lint'
npm run --silent lint

step 'tests'
npm test
