#!/bin/sh
# The logs of docs/randomness: batteries of others on `sdesim random`.
#
#   PYTHON=python TESTU01=./testu01_stdin PRACTRAND=RNG_test sh benchmarks/batteries/run.sh FOLDER [small|practrand|crush|control]...
#
# TESTU01 is testu01_stdin.c beside this file, built with TestU01 1.2.3; PRACTRAND is RNG_test of PractRand 0.95.
# small takes a minute, practrand (16 GiB along paths, 4 across, 2 of normals) five, crush forty. The control is a copy
# of the library whose Philox has 3 rounds in place of 10: every battery must say so.
set -u
folder=$1
shift
PYTHON=${PYTHON:-python} TESTU01=${TESTU01:-testu01_stdin} PRACTRAND=${PRACTRAND:-RNG_test}
label=
mkdir -p "$folder"

stream() { "$PYTHON" -m sdesim random "$@"; }

testu01() { # size, file, arguments of `sdesim random`
    size=$1 file=$2
    shift 2
    stream "$@" | "$TESTU01" "$size" "${label}sdesim random $*" 2>&1 | grep -v '^ *$' >"$folder/$file.txt"
}

practrand() { # bits, length, file, arguments
    bits=$1 length=$2 file=$3
    shift 3
    { echo "${label}sdesim random $*"; stream "$@" | "$PRACTRAND" "stdin$bits" -tlmax "$length" 2>&1; } |
        grep -v '^ *$' >"$folder/$file.txt"
}

for part in "$@"; do
    case $part in
    small)
        testu01 small smallcrush_raw_path --raw --order path
        testu01 small smallcrush_raw_step --raw --order step
        testu01 small smallcrush_normals_path --normals --words --order path
        testu01 small smallcrush_normals_step --normals --words --order step
        for seed in 0 1 2 3; do
            testu01 small "smallcrush_normals32_path_seed$seed" --normals --words --dtype float32 --seed $seed
        done
        ;;
    practrand)
        practrand 32 16GB practrand_raw_path --raw --order path
        practrand 32 4GB practrand_raw_step --raw --order step
        practrand 32 2GB practrand_normals_path --normals --words --order path
        practrand 16 1GB practrand_normals32_path --normals --words --order path --dtype float32
        ;;
    crush)
        testu01 crush crush_raw_path --raw --order path
        testu01 crush crush_raw_step --raw --order step
        ;;
    control)
        before=${PYTHONPATH-} copy=$(mktemp -d)
        cp -r "$("$PYTHON" -c 'import pathlib, sdesim; print(pathlib.Path(sdesim.__file__).parent)')" "$copy"
        sed -i 's/range(10)/range(3)/' "$copy/sdesim/core/philox.py"
        export PYTHONPATH="$copy"
        label="3 rounds: "
        testu01 small control_3_rounds_smallcrush --raw --order path
        practrand 32 1GB control_3_rounds_practrand --raw --order path
        rm -r "$copy"
        label= PYTHONPATH=$before
        ;;
    esac
done
