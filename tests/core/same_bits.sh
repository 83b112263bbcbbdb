#!/bin/sh
# same_bits.sh NATIVE NEON: runs both programs with every instruction set that promises bits; one hash must come out.
set -eu
hashes=""
native=$1 neon=$2
for set in avx2 avx512 neon; do
    case $set in neon) program=$neon ;; *) program=$native ;; esac
    line=$(CROSSENTROPY_ISA=$set $program) || { echo "$set: not run on this CPU" >&2; continue; }
    echo "$line"
    hashes="$hashes ${line##* }"
done
[ "$(echo "$hashes" | tr ' ' '\n' | sed '/^$/d' | sort | uniq -c | wc -l)" = 1 ] || { echo "the bits differ" >&2; exit 1; }
[ "$(echo "$hashes" | wc -w)" -ge 2 ] || { echo "fewer than two instruction sets ran" >&2; exit 1; }
echo "the same bits"
