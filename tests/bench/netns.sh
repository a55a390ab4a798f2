# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154
# tests/bench/netns.sh - ranks in network namespaces of their own, over links as slow as one wishes; sourced.
#
#   . tests/bench/netns.sh          makes $work, $tag and the job's secret; clears all of it up at the end
#   netns_pair MBIT || exit 77      ranks 0 and 1, one link, both ways limited
#   netns_star MBIT...              as many ranks as numbers, each behind a link of its own to one router
#   netns_run RANKS PROGRAM...      on every rank at once; $work/out.RANK and err.RANK; "%r" in a word is the rank
#
# Rank r is at 10.78.0.(r + 1) (a pair) or 10.77.r.2 (a star). tc's token bucket limits a link: `tbf` is in
# every kernel, unlike `netem`, so lateness is the transport's own (setting fault=delay).
#
# Needs root, ip and tc. The one that sources it has set $root and $program.

[ -x "$program" ] || { echo "${0##*/}: no program at $program; build it, or set GEARTRAIN"; exit 1; }
tag=gt$$
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-netns-XXXXXX") || exit 1
running='' spaces='' main_address=10.78.0.1

netns_clear()
{
    [ -z "$running" ] || kill $running 2> /dev/null
    for space in $spaces; do
        ip netns del "$space" 2> /dev/null
    done
    rm -rf "$work"
}
trap netns_clear EXIT
trap 'exit 1' HUP INT TERM

head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$work/secret"
chmod 600 "$work/secret"

netns_make()    # NAME
{
    ip netns add "$tag-$1" 2> /dev/null || return 1
    spaces="$spaces $tag-$1"
    ip -n "$tag-$1" link set lo up
}

netns_limit()   # NAME DEVICE MBIT
{
    ip netns exec "$tag-$1" tc qdisc replace dev "$2" root tbf rate "${3}mbit" burst "$((32 + $3 / 4))kbit" latency 400ms
}

netns_end()     # RANK MBIT
{
    ip -n "$tag-$1" addr add "10.78.0.$(($1 + 1))/24" dev gt && ip -n "$tag-$1" link set gt up && netns_limit "$1" gt "$2"
}

netns_pair()    # MBIT
{
    netns_make 0 && netns_make 1 && ip link add name gt netns "$tag-0" type veth peer name gt netns "$tag-1" &&
    netns_end 0 "$1" && netns_end 1 "$1"
}

netns_link()    # RANK MBIT
{
    netns_make "$1" && ip link add name "n$1" netns "$tag-$1" type veth peer name "r$1" netns "$tag-router" &&
    ip -n "$tag-$1" addr add "10.77.$1.2/24" dev "n$1" && ip -n "$tag-router" addr add "10.77.$1.1/24" dev "r$1" &&
    ip -n "$tag-$1" link set "n$1" up && ip -n "$tag-router" link set "r$1" up &&
    ip -n "$tag-$1" route add default via "10.77.$1.1" &&
    netns_limit "$1" "n$1" "$2" && netns_limit router "r$1" "$2"
}

netns_star()    # MBIT...
{
    main_address=10.77.0.2
    netns_make router && ip netns exec "$tag-router" sysctl -qw net.ipv4.ip_forward=1 || return 1
    rank=0
    for mbit in "$@"; do
        netns_link "$rank" "$mbit" || return 1
        rank=$((rank + 1))
    done
}

netns_run()     # RANKS PROGRAM ARGUMENTS...; 1 if a rank failed
{
    ranks=$1 running='' failed=0
    shift
    port=$((20000 + ($$ + $(date +%N | sed 's/^0*//') / 1000) % 20000))
    rank=$ranks
    while [ "$rank" -gt 0 ]; do
        rank=$((rank - 1))
        (
            for word in "$@"; do            # each is taken from the front and put back behind
                shift
                set -- "$@" "$(printf '%s\n' "$word" | sed "s/%r/$rank/g")"
            done
            exec ip netns exec "$tag-$rank" env RANK="$rank" WORLD_SIZE="$ranks" LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 \
                MASTER_ADDR=$main_address MASTER_PORT=$port GEARTRAIN_NET_SECRET_FILE="$work/secret" "$@"
        ) < /dev/null > "$work/out.$rank" 2> "$work/err.$rank" &
        running="$running $!"
    done
    for pid in $running; do
        wait "$pid" || failed=1
    done
    running=''
    return $failed
}
