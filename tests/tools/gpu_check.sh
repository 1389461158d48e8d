#!/bin/sh
# On a machine with a GPU: the tests that use one, then the benchmarks, within ten minutes; the summary comes last.
#     tests/tools/gpu_check.sh [python]
# Needs kiln with its test extra, and cupy-cuda13x[ctk]; torch for the peers. SECONDS_TESTS and SECONDS_BENCH limit them.
cd "$(dirname "$0")/../.." || exit 2
python=${1:-python3}
out=${OUT:-$(mktemp -d)}
export PYTHONUNBUFFERED=1 KILN_CACHE_DIR="${KILN_CACHE_DIR:-$out/cache}"

limited() { # seconds, then a command
    if command -v timeout >/dev/null; then timeout "$@"; else shift; "$@"; fi
}

if ! "$python" tests/benchmarks/gpu.py --check; then
    echo "gpu_check: nothing to check here (see above)"
    exit 1
fi
limited "${SECONDS_TESTS:-330}" "$python" -m pytest -m gpu -n 8 --maxprocesses 8 tests/gpu >"$out/tests.log" 2>&1
tests=$?
limited "${SECONDS_BENCH:-230}" "$python" tests/benchmarks/gpu.py >"$out/bench.log" 2>&1
bench=$?
grep -E '^(FAILED|ERROR)' "$out/tests.log" | sort -u | head -60
[ $tests -eq 0 ] || tail -40 "$out/tests.log"
cat "$out/bench.log"
echo "== summary"
echo "tests: exit status $tests (124: out of time); $(tail -1 "$out/tests.log")"
echo "benchmarks: exit status $bench (124: out of time)"
echo "logs: $out"
[ $tests -eq 0 ] && [ $bench -eq 0 ]
