# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# tests/bench/small_model.sh - what benches of several ranks train: 10.8 M parameters, 6 layers of 384 channels, and
# a text of 20,000 lines for it; sourced.
#
#   small_model FOLDER              writes FOLDER/model.json and FOLDER/text.txt

small_model()
{
    line=0
    while [ $line -lt 20000 ]; do
        echo "$line wheels turn $((line * 7919 % 10007)) teeth, then $((line * line % 9973)) more of them"
        line=$((line + 1))
    done > "$1/text.txt"
    cat > "$1/model.json" <<'END'
{ "model_type": "gpt2", "n_layer": 6, "n_head": 6, "n_embd": 384, "n_positions": 128, "n_ctx": 128 }
END
}
