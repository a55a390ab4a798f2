# SPDX-License-Identifier: MIT
# tests/verbs/guest.sh - a virtual machine with Soft-RoCE, for tests that source this file.
#
#   . tests/verbs/guest.sh
#   guest_prepare || exit 77               says in one line what is missing
#   guest_start NAME SCRIPT [QEMU...]      boots in the background; SCRIPT runs as root in it
#   guest_wait NAME SECONDS                waits; the output is $work/NAME.out; SCRIPT's status
#
# The guest runs Debian's own kernel, for rdma_rxe needs one with that module, on a QEMU without
# hardware acceleration, for the hosts of tests are virtual machines themselves as a rule. The
# kernel's package is unpacked, never installed. The guest has no disk: its root is this
# host's, seen read-only over 9p under a layer of memory, so every program and library of the
# host runs in it unchanged, those just built as well. $work, a folder, is shared for writing.
#
#   host /  ──9p, read-only──► lower ┐
#                      tmpfs ► upper ┴─overlay──► guest /         $work ──9p──► $work
#
# Kernel and first file system are kept in the user's cache, about 12 MB. Emulated, a guest is
# ten to twenty times slower than the host: fine for right and wrong, not for speed. Left to itself its kernel
# would read the clock from an emulated HPET, by a system call that leaves the guest: on hosts with
# RDMA nothing is like that, so it is told to take the processor's counter.
#
# What a script can use in the guest:   rxe_up DEVICE ADDRESS MTU    gives it a Soft-RoCE device

guest_packages="qemu-system-x86 busybox-static kmod cpio iproute2 rdma-core ibverbs-providers"
# In the order of insmod they are put by modprobe. crc32_generic is no dependency of rdma_rxe in
# name, but without it no device can be added.
guest_modules="virtio_pci virtio_net 9pnet_virtio 9p overlay dummy sch_netem ib_uverbs rdma_ucm
               crc32_generic rdma_rxe"

guest_missing()
{
    for tool in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static depmod:kmod cpio:cpio \
                rdma:iproute2 dpkg-deb:dpkg; do
        command -v "${tool%%:*}" > /dev/null || PATH=$PATH:/sbin:/usr/sbin command -v "${tool%%:*}" \
            > /dev/null || { echo "skipped: without ${tool%%:*} (package ${tool##*:}) there is no guest"; return 1; }
    done
    [ "$(uname -m)" = x86_64 ] || { echo "skipped: the guest is for x86_64 hosts"; return 1; }
}

# The first file system: just enough to get to the host's.
guest_initrd()      # UNPACKED-KERNEL VERSION OUTPUT
{
    root=$1/initrd
    mkdir -p "$root/bin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" "$root/lower" \
        "$root/layer" "$root/root"
    cp "$(command -v busybox)" "$root/bin/busybox" || return 1
    depmod -b "$1" "$2" || return 1
    for module in $guest_modules; do
        modprobe -d "$1" -S "$2" --show-depends "$module" || return 1
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
        cp "$file" "$root/modules/" && echo "${file##*/}" >> "$root/modules/list"
    done
    cat > "$root/init" <<'END'
#!/bin/busybox sh
PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module"
done < /modules/list
nine=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$nine,cache=loose,ro" host /lower
mount -t tmpfs -o size=60% tmpfs /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /root
for folder in proc sys dev; do
    mount --move "/$folder" "/root/$folder"
done
mkdir -p /root/dev/shm
mount -t tmpfs tmpfs /root/dev/shm
mount -t tmpfs tmpfs /root/tmp
work=$(sed 's/.*guest_work=\([^ ]*\).*/\1/' /root/proc/cmdline)
name=$(sed 's/.*guest_name=\([^ ]*\).*/\1/' /root/proc/cmdline)
mkdir -p "/root$work"
mount -t 9p -o "$nine" work "/root$work"
chroot /root /bin/sh "$work/$name.start"
echo o > /root/proc/sysrq-trigger
sleep 10
END
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc 2> /dev/null | gzip -1) > "$3"
}

# Sets guest_kernel, guest_first; makes them if the cache has none.
guest_prepare()
{
    guest_missing || return 1
    cache=${GEARTRAIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/geartrain}/guest
    mkdir -p "$cache" || return 1
    package=$(apt-cache depends linux-image-amd64 2> /dev/null | awk '$1 == "Depends:" { print $2; exit }')
    version=${package#linux-image-}
    # Modules and /init may change with this file, so its checksum is part of the name.
    stamp=$(cksum < "$root_of_tests/verbs/guest.sh" | cut -d ' ' -f 1)
    if [ -n "$version" ] && [ ! -f "$cache/$version-$stamp.initrd" ]; then
        build=$(mktemp -d) || return 1
        (cd "$build" && apt-get download "$package" && dpkg-deb -x "$package"_*.deb .) > "$build/log" 2>&1 \
            && PATH=$PATH:/sbin:/usr/sbin guest_initrd "$build" "$version" "$build/part" 2>> "$build/log" \
            && rm -f "$cache"/*.initrd "$cache"/*.kernel \
            && cp "$build/boot/vmlinuz-$version" "$cache/$version-$stamp.kernel" \
            && cp "$build/part" "$cache/$version-$stamp.part" \
            && mv "$cache/$version-$stamp.part" "$cache/$version-$stamp.initrd"
        [ -f "$cache/$version-$stamp.initrd" ] || tail -n 3 "$build/log"
        rm -rf "$build"
    fi
    guest_first=$(ls "$cache"/*.initrd 2> /dev/null | tail -n 1)
    guest_kernel=${guest_first%.initrd}.kernel
    if [ ! -f "$guest_kernel" ]; then
        echo "skipped: Debian's kernel package (linux-image-amd64) cannot be had"
        return 1
    fi
}

guest_start()       # NAME SCRIPT [QEMU ARGUMENTS...]
{
    name=$1
    cp "$2" "$work/$name.script"
    cat > "$work/$name.start" <<END
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TMPDIR=/tmp
exec > "$work/$name.out" 2>&1
ulimit -l unlimited
ip link set lo up
rxe_up()
{
    ip addr add "\$2/24" dev "\$1" && ip link set "\$1" mtu "\$3" up || return 1
    rdma link add rxe0 type rxe netdev "\$1"
}
cd /tmp
work=$work
( . "$work/$name.script" )
echo "\$?" > "$work/$name.status"
sync
END
    shift 2
    rm -f "$work/$name.status"
    : > "$work/$name.out"
    # shellcheck disable=SC2086
    qemu-system-x86_64 ${GUEST_ACCELERATOR:--accel tcg,thread=multi} -cpu "${GUEST_PROCESSOR:-max}" -smp "${GUEST_CPUS:-2}" -m "${GUEST_MEMORY:-2048}" -nographic \
        -no-reboot -nodefaults -serial "file:$work/$name.console" -kernel "$guest_kernel" \
        -initrd "$guest_first" \
        -append "console=ttyS0 panic=-1 quiet clocksource=tsc tsc=reliable guest_name=$name guest_work=$work" \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -virtfs "local,path=$work,mount_tag=work,security_model=none" "$@" \
        > "$work/$name.qemu" 2>&1 < /dev/null &
    eval "guest_pid_$name=$!"
}

guest_wait()        # NAME SECONDS
{
    eval "pid=\$guest_pid_$1"
    waited=0
    while kill -0 "$pid" 2> /dev/null; do
        if [ "$waited" -ge "$2" ]; then
            kill "$pid"
            echo "the guest was stopped after $2 s" >> "$work/$1.out"
        fi
        sleep 1
        waited=$((waited + 1))
    done
    if [ ! -f "$work/$1.status" ]; then
        echo "the guest ended before its script did; its console:" >> "$work/$1.out"
        tail -n 20 "$work/$1.console" "$work/$1.qemu" >> "$work/$1.out" 2> /dev/null
        return 125
    fi
    return "$(cat "$work/$1.status")"
}
