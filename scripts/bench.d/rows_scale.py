"""Rows over many files, many increments, many volumes, and the cost of FUSE itself."""

import os

import trees
from box import Failure, run
from measure import below, faster, row, within
from rows_files import bare, decode


@row('million', 'a million files, 30 increments: mount to the first `ls latest`', 3,
     within('first mount', 'gpg over its signature archives', 2), below('peak memory, first mount', 400e6),
     below('second mount', 0.5), below('peak memory, second mount', 150e6))
def million(bench, rec):
    box, corpus = bench.box, bench.corpus('million')
    for _ in rec.each_round():
        cache = box.new_cache()
        for name in ('first mount', 'second mount'):
            with rec.clock(name) as clock, box.dupfs(corpus, cache=cache) as mount:
                names = run(['ls', '-U', mount / 'latest/'])
                clock.stop(mount)
                rec.add(f'peak memory, {name}', mount.peak_memory())
            if names.count(b'\n') != 821:
                raise Failure(f'{names.count(10)} names in the root of the million files, not 821')
        with rec.clock('gpg over its signature archives'):
            run(decode(corpus.objects('signatures')), env=box.env)


@row('million-find', 'a million files: `find -ls`, index warm, a new mount', 3, faster('dupfs', 'bindfs', 5),
     within('dupfs', 'bare FUSE', 1.5))
def million_find(bench, rec):
    box, corpus = bench.box, bench.corpus('million')
    cache = box.new_cache()
    with box.dupfs(corpus, cache=cache) as mount:
        shown = mount / 'latest/'
        # warms the index: all exact sizes
        if trees.listing(shown) != trees.listing(corpus.newest):
            raise Failure('the mount of the million files is not the tree that was written')
        for name in ('d0000', 'd0001', 'd0002'):
            trees.check_same(os.path.join(shown, name), os.path.join(corpus.newest, name))
    for _ in rec.each_round():
        with box.dupfs(corpus, cache=cache) as mount:
            with rec.clock('dupfs', mount):
                run(['find', mount / 'latest/', '-ls'], discard=True)
            rec.add('peak memory', mount.peak_memory())
        run(['find', corpus.newest, '-ls'], discard=True)
        with box.served(['bindfs', '-f', corpus.newest], 'mnt/bindfs') as mount, rec.clock('bindfs', mount):
            run(['find', mount.path, '-ls'], discard=True)
        with bare(bench, 820, 988, 197_939, 100, 400) as mount, rec.clock('bare FUSE', mount):
            run(['find', mount.path, '-ls'], discard=True)


@row('wide', 'a directory of 200,000 entries, `ls -f`, tree read: time an entry', 3, within('dupfs', 'directories of 1,000', 2))
def wide(bench, rec):
    box, corpus = bench.box, bench.corpus('million')
    with box.dupfs(corpus) as mount:
        run(['ls', mount / 'latest/'])
    cache = box.new_cache()
    for _ in rec.each_round():
        with box.dupfs(corpus, cache=cache) as mount:
            run(['ls', mount / 'latest/'])
            narrow = [mount / f'latest/d{i:04}' for i in range(200)]
            with rec.clock('dupfs', mount):
                many = run(['ls', '-f', mount / 'latest/wide'])
            with rec.clock('directories of 1,000', mount):
                few = run(['ls', '-f', *narrow])
        if min(many.count(b'\n'), few.count(b'\n')) < 190_000:
            raise Failure('names are missing')


@row('small-files', '10,000 small files, decoded before, not in the kernel\'s caches', 3, within('dupfs, tar c', 'bare FUSE, tar c', 1.5),
     within('dupfs, cp -a', 'bare FUSE, cp -a', 1.5), within('dupfs, tar c again', 'bare FUSE, tar c again', 1.5))
def small_files(bench, rec):
    box, corpus = bench.box, bench.corpus('small')
    old, new = (f'snapshots/{name}' for name in bench.snapshots('small'))
    tar = 'tar c -C "$0" . | cat >/dev/null'
    for _ in rec.each_round():
        # The two snapshots differ in one file. Reading one decodes the volumes of the other, without its data in the caches of
        # the kernel.
        with box.dupfs(corpus) as mount:
            run(['sh', '-c', tar, mount / old])
            for name in ('tar c', 'tar c again'):
                with rec.clock(f'dupfs, {name}', mount):
                    run(['sh', '-c', tar, mount / new])
        with bare(bench, 100, 100, 0, 1024, 16384) as mount:
            for name in ('tar c', 'tar c again'):
                with rec.clock(f'bare FUSE, {name}', mount):
                    run(['sh', '-c', tar, mount.path])
        with box.dupfs(corpus) as mount:
            run(['sh', '-c', tar, mount / old])
            target = box.target('copy')
            with rec.clock('dupfs, cp -a', mount):
                run(['cp', '-a', mount / new, target])
            trees.check_same(target, corpus.newest)
        with bare(bench, 100, 100, 0, 1024, 16384) as mount:
            target = box.target('copy')
            with rec.clock('bare FUSE, cp -a', mount):
                run(['cp', '-a', mount.path, target])


def many(bench, rec, name):
    """Mount, list everything and copy one directory, cold; duplicity lists."""
    box, corpus = bench.box, bench.corpus(name)
    for _ in rec.each_round():
        cache = box.new_cache()
        with rec.clock('dupfs') as clock, box.dupfs(corpus, cache=cache) as mount:
            run(['find', mount / 'latest/'], discard=True)
            clock.stop(mount)
            rec.add('peak memory', mount.peak_memory())
            trees.check_same(mount / 'latest/d0001', os.path.join(corpus.newest, 'd0001'))
        with rec.clock('duplicity'):
            run(box.duplicity('list-current-files', corpus, corpus.url), env=box.env)


@row('increments', '300 increments on 20,000 files: mount + full listing, cold', 3, faster('dupfs', 'duplicity', 15))
def increments(bench, rec):
    many(bench, rec, 'increments')


@row('volumes', '20,000 files in 10,000 volumes: mount + full listing, cold', 3, faster('dupfs', 'duplicity', 15))
def volumes(bench, rec):
    many(bench, rec, 'volumes')
