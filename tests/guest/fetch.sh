#!/usr/bin/env bash
# Make .cache/guest: Debian's kernel, and the programs of the guest, unpacked and never installed on this machine.
#
#   .cache/guest/layer/      the kernel's modules, tgt, open-iscsi, multipath-tools, ...: laid over the host's own files
#   .cache/guest/vmlinuz     Debian's stock kernel
#   .cache/guest/initrd      busybox and the few modules that mount the host's files
#
# Nothing of it becomes part of this machine: no daemon starts here, no udev rule comes into force.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/tests/guest
cache=$PWD/.cache/guest
stamp=$(cat "$here/fetch.sh" "$here/init.sh" | sha256sum)
[ "$(cat "$cache/.ready" 2>/dev/null)" = "$stamp" ] && exit 0

programs=(kmod udev iproute2 strace tgt open-iscsi multipath-tools sg3-utils sg3-utils-udev nfs-kernel-server nfs-common mtx
    mt-st lsscsi)
fetch() { apt-get -qq -y --download-only -o Dir::Cache::archives="$cache/debs" -o Debug::NoLocking=1 \
    -o APT::Sandbox::User=root install --no-install-recommends --reinstall "$@" >/dev/null; }

rm -rf "$cache"
mkdir -p "$cache/debs/partial" "$cache/ram"
kernel=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -1)
if [ -z "$kernel" ] && [ "$(id -u)" -eq 0 ]; then
    apt-get -qq update >/dev/null
    kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -1)
fi
[ -n "$kernel" ] || { echo "apt knows no kernel linux-image-amd64: run apt-get update" >&2; exit 1; }
fetch "${programs[@]}"
(cd "$cache/debs" && apt-get -qq -o APT::Sandbox::User=root download "$kernel" busybox-static)

# Debian 12's /bin, /lib and /sbin are links; unpacked as directories they would hide the host's.
mkdir -p "$cache"/layer/usr/{bin,sbin,lib,lib64}
for link in bin sbin lib lib64; do ln -s "usr/$link" "$cache/layer/$link"; done
for deb in "$cache"/debs/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -xf - -C "$cache/layer" --keep-directory-symlink --no-same-owner \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./lib/modules/*/kernel/sound' \
        --exclude='./lib/modules/*/kernel/drivers/gpu' --exclude='./lib/modules/*/kernel/drivers/media' \
        --exclude='./lib/modules/*/kernel/drivers/net/wireless' --exclude='./lib/modules/*/kernel/drivers/net/ethernet'
done
version=${kernel#linux-image-}
depmod -b "$cache/layer" "$version" 2>/dev/null
mv "$cache/layer/boot/vmlinuz-$version" "$cache/vmlinuz"

mkdir -p "$cache"/ram/{modules,proc,sys,dev,host,layer,out,upper,root}
cp "$cache/layer/bin/busybox" "$cache/ram/busybox"
cp "$here/init.sh" "$cache/ram/init"
chmod 755 "$cache/ram/init"
for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe --show-depends -d "$cache/layer" -S "$version" "$module"
done | sed -n 's/^insmod //p' | awk '!seen[$1]++ { print $1 }' | while read -r file; do
    cp "$file" "$cache/ram/modules/"
    basename "$file"
done >"$cache/ram/modules/order"
(cd "$cache/ram" && find . | "$cache/ram/busybox" cpio -o -H newc 2>/dev/null) >"$cache/initrd"
rm -r "$cache/debs" "$cache/ram"
echo "$stamp" >"$cache/.ready"
