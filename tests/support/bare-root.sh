# usage: sh bare-root.sh ROOT DUPFS SAMPLES SCRIPT  (in a new mount namespace, as root)
# Runs SCRIPT in a root without CA certificates, a system log and getfattr. The programs are this machine's. DUPFS is in PATH
# as dupfs, the sample's backup is /backups/shop, its key and passphrase are in the working directory, and `mysql DATABASE`
# writes its input to /tmp/mysql-DATABASE.
set -eu
root=$1 dupfs=$2 samples=$3 script=$4
# A new namespace also has the mounts of other tests, and would keep them alive after they are unmounted.
umount -alt fuse.dupfs || true
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir -p etc dev proc tmp mnt root opt run usr var/log srv/www/shop/assets backups/shop
chmod 1777 tmp
mount --rbind /usr usr
for dir in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$dir" ]; then
        cp -P "/$dir" .
    elif [ -d "/$dir" ]; then
        mkdir "$dir"
        mount --rbind "/$dir" "$dir"
    fi
done
for file in passwd group nsswitch.conf ld.so.cache; do
    if [ -e "/etc/$file" ]; then cp "/etc/$file" etc; fi
done
mount --rbind /proc proc
# fusermount3 reads it.
ln -s /proc/self/mounts etc/mtab
for device in null zero full tty fuse urandom; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
for dir in usr/share/ca-certificates usr/local/share/ca-certificates; do
    if [ -d "$dir" ]; then mount -t tmpfs tmpfs "$dir"; fi
done
for program in usr/bin/getfattr usr/bin/logger; do
    if [ -e "$program" ]; then mount --bind /dev/null "$program"; fi
done
cp "$dupfs" opt/dupfs
printf '#!/bin/sh\ncat >"/tmp/mysql-$1"\n' >opt/mysql
chmod 755 opt/mysql
mount --bind "$samples/backup" backups/shop
install -m 600 "$samples/demo-key.secret.asc" root/key.asc
install -m 600 "$samples/demo-passphrase" root/passphrase
cp "$script" root/script
exec chroot "$root" /usr/bin/env -i PATH=/opt:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LC_ALL=C.UTF-8 TZ=UTC \
    sh -c 'cd && exec sh script'
