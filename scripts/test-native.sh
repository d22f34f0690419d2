#!/usr/bin/env bash
# Builds and runs the native tests: the core and the CPU kernels under AddressSanitizer with UndefinedBehaviorSanitizer
# and as they ship, the queue, the pool and the allocator under ThreadSanitizer.
#   scripts/test-native.sh [plain] [address] [thread]      default: all three
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- plain address thread

for flavour in "$@"; do
  folder=out/native-tests-$flavour
  printf '\n-- native tests, %s\n' "$flavour"
  cmake -S . -B "$folder" -G Ninja -DDIDR_BUILD_TESTS=ON -DDIDR_CUDA=OFF \
    -DDIDR_SANITIZE="${flavour/plain/}" >"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
  cmake --build "$folder" >"$folder.log" 2>&1 || { tail -50 "$folder.log"; exit 1; }
  ctest --test-dir "$folder" --output-on-failure --timeout 600
done
