#!/bin/sh
# The fast paths in C under gcc's address and undefined-behaviour sanitizers, fed by the tests of those that use them: fuzz/sanitize.sh
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cp -r pyproject.toml tests twisted twisted_ingest "$folder"
cd "$folder"
include=$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')
rm -f twisted_ingest/*/*.so
for source in twisted_ingest/*/_*.c; do
  gcc -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -Wall -Wextra -Werror -shared -fPIC -I"$include" \
    "$source" -o "${source%.c}.abi3.so"
done
# Each object in memory of its own: Python's allocator would hide a read past the end of one.
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
  PYTHONMALLOC=malloc PYTHONPATH=. INGEST_TEST_SCANS="${1:-5000}" \
  python -m pytest -p no:cacheprovider tests/test_scan.py tests/test_framing_mixed.py tests/test_framing_lines.py \
  tests/test_storage_calls.py tests/test_storage_courier.py tests/test_sinks_files.py::RotationTests \
  tests/test_framing_take.py tests/test_framing_relp.py tests/test_server_whole.py tests/test_storage_commits.py tests/test_storage_queue.py
