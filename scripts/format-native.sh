#!/usr/bin/env bash
# Formats the C++ and CUDA sources, or with --check says which are not formatted.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(-i)
[ "${1:-}" = --check ] && mode=(--dry-run --Werror)
find native test/native bench -regextype posix-extended -regex '.*\.(h|cc|cu)' -print0 |
  xargs -0 -r clang-format "${mode[@]}"
