#!/bin/sh
# Installs dupfs from this directory: sudo ./install.sh
#   PREFIX    where to; default /usr/local
#   DESTDIR   the root of another system
set -eu
cd "$(dirname "$0")"
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}

mkdir -p "$root$prefix/bin" "$root$prefix/share" "$root$prefix/lib/systemd" "$root/usr/sbin"
# First beside the old program, which may run.
cp bin/dupfs "$root$prefix/bin/dupfs.new"
chmod 755 "$root$prefix/bin/dupfs.new"
mv -f "$root$prefix/bin/dupfs.new" "$root$prefix/bin/dupfs"
cp -R share/. "$root$prefix/share"
for units in system user; do
    mkdir -p "$root$prefix/lib/systemd/$units"
    for unit in lib/systemd/"$units"/*; do
        sed "s|/usr/bin/dupfs|$prefix/bin/dupfs|g" "$unit" >"$root$prefix/$unit"
    done
done
# mount(8) looks for helpers here only.
for helper in mount.dupfs mount.fuse.dupfs; do
    ln -sf "$prefix/bin/dupfs" "$root/usr/sbin/$helper"
done
echo "dupfs is installed in $root$prefix. Users other than root need fusermount3 (package fuse3) in order to mount."
