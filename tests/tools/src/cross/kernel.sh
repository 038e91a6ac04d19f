#!/bin/sh
# Builds a kernel in the current folder, which holds `kernel.config`: what it needs beyond the smallest one.
# Leaves `boot/` and `lib/` as Debian's package of a kernel has them.
set -eu
export ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=racklet \
    KBUILD_BUILD_HOST=racklet
mkdir source
tar -x -C source --strip-components=1 -f /usr/src/linux-source-*.tar.xz
cd source
KCONFIG_ALLCONFIG=../kernel.config make -s allnoconfig
# A symbol that depends on something else is dropped without a word.
while IFS= read -r line; do
    grep -qx "$line" .config || { echo "this kernel cannot have $line" >&2; exit 1; }
done <../kernel.config
make -s -j "$(nproc)" Image
release=$(make -s kernelrelease)
cd ..
mkdir -p boot "lib/modules/$release"
cp source/arch/arm64/boot/Image "boot/vmlinuz-$release"
cp source/modules.builtin "lib/modules/$release/"
: >"lib/modules/$release/modules.order"
rm -rf source
