#!/bin/sh
# Every target for a while: fuzz/run.sh [SECONDS]. New finds go to a folder of their own, not into the kept corpus.
set -eu
seconds=${1:-20}
for target in framing:lines framing:nul framing:octets framing:auto framing:relp proxy:proxy spool:codec spool:recovery; do
  kind=${target#*:}
  finds=$(mktemp -d)
  PYTHONPATH=. python "fuzz/${target%:*}.py" "$kind" -max_total_time="$seconds" -max_len=400 -verbosity=0 -print_final_stats=1 "$finds" "fuzz/corpus/$kind"
  rm -r "$finds"
done
