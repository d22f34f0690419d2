#!/usr/bin/env bash
# Kernels are compiled once per instruction level. A weak symbol that two levels share would be linked once, from any of
# them, and could run AVX-512 on a machine without it. So every weak symbol of a level's objects must carry the level's
# name.
#   levels_test.sh LEVEL OBJECT...
set -euo pipefail
level=$1
shift
tag=${#level}$level # as in the mangled name
[ $# -gt 0 ] || { echo "no objects given for $level"; exit 1; }
leaks=$(nm --defined-only "$@" | awk -v tag="$tag" '$2 ~ /^[WVu]$/ && index($3, tag) == 0 { print $3 }' | sort -u |
  grep -vE '^(DW\.ref\.__gxx_personality_v0)$' || true)
if [ -n "$leaks" ]; then
  echo "weak symbols shared between levels, in objects of $level:"
  c++filt <<<"$leaks"
  exit 1
fi
strong=$(nm --defined-only "$@" | awk -v tag="$tag" '$2 ~ /^[TDBRGS]$/ && index($3, tag) == 0 { print $3 }' | sort -u)
if [ -n "$strong" ]; then
  echo "global symbols outside the namespace of $level:"
  c++filt <<<"$strong"
  exit 1
fi
echo "$# objects of $level share no symbol with other levels"
