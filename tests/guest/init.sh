#!/busybox sh
# The first program of the guest, in its initial RAM disk: the host's files become the guest's root, unwritable.
#
#     host's /            ── 9p, ro ──▶ /host  ┐
#     .cache/guest/layer  ── 9p, ro ──▶ /layer ├ overlay ──▶ /        writes go to memory and end with the guest
#     tmpfs ───────────────────────────▶ /upper ┘
#     a folder of the host ── 9p ────▶ /out                   what the guest has to tell
set -e
trap '/busybox echo "guest: init failed"; /busybox poweroff -f' EXIT
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sysfs /sys
/busybox mount -t devtmpfs dev /dev
/busybox hostname guest
for module in $(/busybox cat /modules/order); do /busybox insmod /modules/$module; done
options=trans=virtio,version=9p2000.L,msize=524288
/busybox mount -t 9p -o $options,ro,cache=loose host /host
/busybox mount -t 9p -o $options,ro,cache=loose layer /layer
/busybox mount -t 9p -o $options out /out
/busybox mount -t tmpfs -o size=70% tmpfs /upper
/busybox mkdir /upper/changes /upper/work
/busybox mount -t overlay -o lowerdir=/layer:/host,upperdir=/upper/changes,workdir=/upper/work overlay /root
for mount in proc sys dev; do /busybox mount --move /$mount /root/$mount; done
for mount in run tmp; do /busybox mkdir -p /root/$mount; /busybox mount -t tmpfs tmpfs /root/$mount; done
/busybox mkdir -p /root/out
/busybox mount --move /out /root/out
exec /busybox switch_root /root /bin/bash /out/start
