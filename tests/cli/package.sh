#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/package.sh - what `cmake --install` installs, and a Debian package of it, unpacked into an
# empty root: the program runs, its page and its completions lie where man and the shells look.
tests=$(cd "$(dirname "$0")/.." && pwd)
: "${BUILD:=$tests/../build}"
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
. "$tests/cli/cli_checks.sh"

# whole ROOT: the files are below it, and the program is the one that was built
whole()
{
    for file in bin/geartrain share/man/man1/geartrain.1 share/bash-completion/completions/geartrain \
        share/zsh/site-functions/_geartrain share/doc/geartrain/copyright; do
        [ -s "$1/$file" ] || { echo "$file is missing"; return 1; }
    done
    [ "$("$1/bin/geartrain" --version)" = "$("$geartrain" --version)" ]
}

cmake --install "$BUILD" --prefix "$work/local" > install.log 2>&1
check "cmake --install" whole local
for tool in dpkg-deb dpkg-shlibdeps cpack; do
    if ! command -v $tool > /dev/null; then
        echo "$tool is not here: no package is made"
        close_checks
    fi
done
(cd "$BUILD" && cpack -G DEB -B "$work/cpack") > cpack.log 2>&1
check "cpack makes a package" [ $? -eq 0 ]
deb=$(ls cpack/geartrain_*.deb)
like() { expr "$1" : "$2" > /dev/null; }
check "one, named as Debian names them" like "$deb" 'cpack/geartrain_[0-9.]*_[a-z0-9]*\.deb$'
field() { dpkg-deb -f "$deb" "$1"; }
field Depends > depends
for library in libc6 libjansson4 libpcre2-8-0 libutf8proc2 libsodium23 ocl-icd-libopencl1; do
    check "depends on $library" grep -q "$library" depends
done
check "recommends a driver" [ "$(field Recommends)" = "pocl-opencl-icd, libdnnl2" ]
check "says what it is" like "$(field Description | head -n 1)" '.*OpenCL driver'
dpkg-deb -x "$deb" root
check "holds everything" whole root/usr
if command -v groff > /dev/null; then
    groff -man -ww -Tutf8 root/usr/share/man/man1/geartrain.1 > page 2> warnings
    check "its page is rendered without a warning" [ ! -s warnings ]
fi
close_checks
