#!/usr/bin/env bash
# Runs the tests of the native kernel with the build in the folder that is given, under the sanitizers of gcc.
set -euo pipefail
tests=$(cd "$(dirname "$0")" && pwd)
cd "$1"
test -e gradwatch/measure/_native.abi3.so

export PYTHONPATH=$PWD ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
under_sanitizers() {
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" "${PYTHON:-python3}" "$@"
}
under_sanitizers "$tests/disturbed.py" "${ROUNDS:-300}" set
# Imported first, so that pytest finds this build and not the one beside the tests.
under_sanitizers -c 'import sys; import gradwatch.measure.kernel, pytest; sys.exit(pytest.main(sys.argv[1:]))' \
    -p no:cacheprovider -k "not environment" "$tests/test_kernel.py" "$tests/../test_shield.py"
