#!/bin/sh
# Every framer for a while: fuzz/run.sh [SECONDS]. New finds go to a folder of their own, not into the kept corpus.
set -eu
seconds=${1:-20}
for kind in lines nul octets auto relp; do
  finds=$(mktemp -d)
  python fuzz/framing.py "$kind" -max_total_time="$seconds" -max_len=400 -verbosity=0 -print_final_stats=1 "$finds" "fuzz/corpus/$kind"
  rm -r "$finds"
done
