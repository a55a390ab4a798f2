#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/models/parity.sh - parity.py with ${GT_PYTHON:-python3}, where that has torch and transformers.
#
# Arguments are names of parity.py's models; without any, all are compared.
: "${BUILD:=build}" "${GEARTRAIN:=$BUILD/geartrain}"
case $GEARTRAIN in /*) ;; *) GEARTRAIN=$PWD/$GEARTRAIN ;; esac
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
python=${GT_PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd) || exit 1
skip()
{
    echo "skipped: $1"
    exit 77
}
[ -x "$GEARTRAIN" ] || skip "there is no program '$GEARTRAIN'; name it with \$GEARTRAIN"
[ -x "$BUILD/tests/models/model_run" ] \
    || skip "there is no program '$BUILD/tests/models/model_run'; name the build with \$BUILD"
# Keys of transformers 5 are what is written there; 4 has no rope_parameters.
"$python" -c 'import torch, transformers, sys; sys.exit(int(transformers.__version__.split(".")[0]) < 5)' 2> /dev/null \
    || skip "no Python packages 'torch' and 'transformers' 5 for $python; name another with \$GT_PYTHON"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-cli-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/files"
GEARTRAIN_CACHE=${GEARTRAIN_CACHE:-$work/cache}
export GEARTRAIN_CACHE
"$python" "$here/parity.py" "$GEARTRAIN" "$BUILD/tests/models/model_run" "$work/files" "$@"
