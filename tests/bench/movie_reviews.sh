#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/movie_reviews.sh - BERT fine-tuned to tell good reviews of films from bad ones.
#
#   sh tests/bench/movie_reviews.sh ENCODER movie_reviews.zip [option of train ...]
#
# ENCODER is a Hugging Face folder with a BERT, such as all-MiniLM-L6-v2. The archive is Pang and Lee's polarity
# dataset 2.0: 1,000 reviews of either label. Of each label those numbered 900 to 999 validate; of the
# others a tenth is what train would validate on by itself, and 1,620 train. Of a review its last 600 characters are
# read, where the verdict stands: some 128 tokens. Prints the split, the command of train, the accuracy of the last step
# on all 200, and the time.
#
#   $STEPS   steps of 16 reviews: 120 are 1.2 epochs, and five minutes of two cores      [120]
#   $SEED    of the order and the new head                                               [1]
: "${GEARTRAIN:=build/geartrain}" "${STEPS:=120}" "${SEED:=1}"
case $GEARTRAIN in /*) ;; *) GEARTRAIN=$PWD/$GEARTRAIN ;; esac
[ $# -ge 2 ] || { echo "usage: movie_reviews.sh ENCODER movie_reviews.zip [option of train ...]" >&2; exit 2; }
encoder=$1 archive=$2
shift 2
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-reviews-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
python3 - "$archive" "$work" <<'END' || exit 1
import csv, re, sys, zipfile
files = {name: open(f"{sys.argv[2]}/{name}.csv", "w", newline="", encoding="utf-8") for name in ("train", "val")}
rows = {name: csv.writer(f) for name, f in files.items()}
counts = {}
for w in rows.values():
    w.writerow(["text", "label"])
archive = zipfile.ZipFile(sys.argv[1])
for name in sorted(archive.namelist()):
    found = re.search(r"/(pos|neg)/cv(\d+)_\d+\.txt$", name)
    if found:
        part = "val" if int(found.group(2)) >= 900 else "train"
        rows[part].writerow([archive.read(name).decode("utf-8", "replace")[-600:], found.group(1)])
        counts[part, found.group(1)] = counts.get((part, found.group(1)), 0) + 1
for f in files.values():
    f.close()
print("split   " + ", ".join(f"{n} {label} in {part}" for (part, label), n in sorted(counts.items())))
END
set -- train --from "$encoder" --task classify --data "$work/train.csv" --eval-data "$work/val.csv" \
    --label-key label --out "$work/run" --seq 128 --batch 16 --steps "$STEPS" --lr 1e-4 --warmup 10 \
    --lr-schedule linear --eval-every 40 --save-every 0 --seed "$SEED" "$@"
echo "command geartrain $*"
began=$(date +%s)
"$GEARTRAIN" "$@" || exit 1
ended=$(date +%s)
"$GEARTRAIN" eval --from "$work/run" --data "$work/val.csv" --label-key label --seq 128 || exit 1
echo "time    $((ended - began)) s of training, compilation and measuring included"
