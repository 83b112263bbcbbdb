#!/bin/sh
# sanitize.sh BIN [SECONDS [KINDS]]: builds the core with sanitizers and drives every kernel of this CPU for so long with
# each; with the kind coverage, prints which lines of src/core the problems reach, and fails below 95 %.
set -eu
bin=$1 seconds=${2:-20} kinds=${3:-address,undefined thread coverage}
case $(uname -m) in
    x86_64) sets='baseline avx2 avx512' ;;
    *) sets='baseline neon' ;;
esac
for kind in $kinds; do
    build=build/sanitize-$kind
    "$bin/cmake" -S tests/core -B "$build" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" -DCMAKE_BUILD_TYPE=None \
        -DCROSSENTROPY_OPTIMIZATION=-O1 -DCROSSENTROPY_SANITIZE=$kind >/dev/null
    "$bin/cmake" --build "$build"
    find "$build" -name '*.gcda' -delete
    for set in $sets; do
        if ! told=$(sh -c 'CROSSENTROPY_ISA=$0 exec "$1" "$2" 2>&1' "$set" "$build/fuzz" "$seconds"); then
            case $told in
                *"CROSSENTROPY_ISA: expected one of"*) continue ;;  # not on this CPU
                *) echo "$kind, $set: $told" >&2; exit 1 ;;
            esac
        fi
        echo "$kind: $told"
    done
done
case $kinds in *coverage) ;; *) exit ;; esac
"$bin/gcovr" --root . --filter 'src/core/' --exclude-unreachable-branches --merge-mode-functions=separate \
    --gcov-ignore-parse-errors=negative_hits.warn --fail-under-line 95 build/sanitize-coverage
