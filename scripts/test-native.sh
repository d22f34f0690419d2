#!/usr/bin/env bash
# Builds and runs the native tests: the core and the CPU kernels under AddressSanitizer with UndefinedBehaviorSanitizer
# and as they ship, the queue, the pool and the allocator under ThreadSanitizer.
#   scripts/test-native.sh [plain] [address] [thread]      default: all three
#
# Left out unless DIDR_LONG_TESTS is set: the CUDA kernels on the host as they ship (AddressSanitizer's build goes through
# all of them), and ThreadSanitizer for all but the method's own.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- plain address thread

# The sanitizers go through one instruction level, the best that this machine runs: they take their time.
best=v3
grep -qw avx512bw /proc/cpuinfo && best=v4

for flavour in "$@"; do
  folder=out/native-tests-$flavour
  levels='v2;v3;v4'
  [ "$flavour" = plain ] || levels=$best
  printf '\n-- native tests, %s\n' "$flavour"
  mkdir -p out
  options=(-DDIDR_BUILD_TESTS=ON -DDIDR_LEVELS="$levels")
  if [ "$flavour" = plain ] && [ -f out/CMakeCache.txt ]; then
    # The addon's own build has the same objects.
    folder=out
  else
    options+=(-G Ninja -DDIDR_CUDA=OFF -DDIDR_SANITIZE="${flavour/plain/}")
  fi
  log=out/native-tests-$flavour.log
  cmake -S . -B "$folder" "${options[@]}" >"$log" 2>&1 || { cat "$log"; exit 1; }
  cmake --build "$folder" >"$log" 2>&1 || { tail -50 "$log"; exit 1; }
  left_out=()
  if [ -z "${DIDR_LONG_TESTS:-}" ]; then
    left_out=(--label-exclude long)
    [ "$flavour" = plain ] && left_out+=(--exclude-regex '^cuda-on-host')
    echo "without DIDR_LONG_TESTS: ${left_out[*]}"
  fi
  ctest --test-dir "$folder" --output-on-failure --timeout 900 --parallel "$(nproc)" "${left_out[@]}"
done
