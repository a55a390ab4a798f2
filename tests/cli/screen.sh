#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/screen.sh - what a person sees: on terminals of several widths no line is longer than the
# screen and no word is broken, the bar tells what matters, and a warning does not run into it. In a
# pipe a sentence stays one line.
. "$(dirname "$0")/cli_checks.sh"
if ! command -v python3 > /dev/null; then
    echo "there is no python3 to make a terminal with"
    exit 77
fi

# terminal.py COLUMNS COMMAND...: runs it on a terminal, prints what its screen showed, line by line, each
# redrawn bar one.
cat > terminal.py <<'END'
import fcntl, os, pty, re, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, int(sys.argv[1]), 0, 0))
    os.execvp(sys.argv[2], sys.argv[2:])
data = b""
while True:
    try:
        more = os.read(fd, 65536)
    except OSError:
        break
    if not more:
        break
    data += more
os.waitpid(pid, 0)
text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r\033[K", "\n")
assert "\033" not in text, re.findall("\033.{0,5}", text)[:3]
sys.stdout.write("\n".join(line for line in text.split("\n") if line) + "\n")
END

# fits NAME COLUMNS: no line of stdout is longer
fits()
{
    check "$1" [ "$(awk -v most="$2" 'length($0) > most && NF > 1' stdout | tee stderr | wc -l)" -eq 0 ]
}

long='train --model this-is-no-model --data x --out y'
"$geartrain" $long > stdout 2> stderr
check "in a pipe a sentence is one line" [ "$(wc -l < stderr)" -eq 1 ]
sentence=$(cat stderr)
for columns in 60 80 120; do
    python3 terminal.py $columns "$geartrain" $long > stdout
    fits "a sentence fits $columns columns" $columns
    check "and is the same in words" [ "$(tr -s ' \n' ' ' < stdout | sed 's/ $//')" = "$sentence" ]
    for words in "train --help" "doctor" "devices" "bench -h"; do
        python3 terminal.py $columns "$geartrain" $words > stdout
        fits "$words fits $columns columns" $columns
    done
done
for i in 1 2 3 4 5 6 7 8; do cat "$text" "$text" "$text" "$text" "$text" "$text" "$text" "$text"; done > longer.txt
python3 terminal.py 120 "$geartrain" tokenize longer.txt --tokenizer bpe:300 -o tokenized > stdout
check "what tokenize says does not run into its bar" grep -q '^tokenized: [0-9]* training' stdout
for columns in 60 80 120; do
    rm -rf run
    python3 terminal.py $columns "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 \
        --batch 4 --steps 30 --eval-every 10 --out run > stdout
    fits "a run fits $columns columns" $columns
    check "its bar ends at the last step" grep -Eq '^step 30/30 .*loss [0-9.]+ ' stdout
    check "evaluations stay above it" [ "$(grep -Ec '^step [123]0 +loss [0-9.]+  val [0-9.]+ .*lr ' stdout)" -eq 3 ]
done
check "at 120 columns the bar has all" grep -Eq \
    '^step 30/30 \[#+\] loss [0-9.]+  val [0-9.]+  lr [0-9.e-]+  grad [0-9.]+  .* tok/s  0:00 left$' stdout
python3 terminal.py 80 sh -c "exec \"$geartrain\" generate --from run --prompt the --tokens 120 --seed 3 2> stderr" > stdout
"$geartrain" generate --from run --prompt "the" --tokens 120 --seed 3 > piped 2> stderr
check "generated text is what it is in a pipe" [ "$(grep -v '^ *$' piped | tr -s '\n')" = \
    "$(sed '/tok\/s/d; /tokens\/s/d' stdout | grep -v '^ *$' | tr -s '\n')" ]
python3 terminal.py 40 "$geartrain" devices --json > stdout
"$geartrain" devices --json > piped
check "so is JSON" [ "$(grep -v '^$' piped)" = "$(cat stdout)" ]
close_checks
