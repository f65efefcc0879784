"""Rows over backups that real duplicity wrote: listing, one file, everything."""

import os
import shutil

import corpora
import trees
from box import Failure, run
from measure import below, compare, faster, row, within

BIG, SMALL = 'var/backups/dump.sql', 'etc/app/settings.xml'


def restore(box, corpus, clock, wanted, *options):
    """duplicity restores to a new directory, without an archive directory. The result must equal `wanted`."""
    target = box.target('duplicity')
    with clock:
        run(box.duplicity('restore', corpus, *options, corpus.url, target), env=box.env)
    if os.path.isdir(wanted):
        trees.check_same(target, wanted)
    elif not trees.same_file(target, wanted):
        raise Failure(f'duplicity restored other bytes than {wanted}')


@row('list', 'mount + full listing, cold', 5, faster('dupfs', 'duplicity', 15), compare('find, bare FUSE', 'duplicity'))
def listing(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    for _ in rec.each_round():
        cache = box.new_cache()
        with rec.clock('dupfs') as clock, box.dupfs(corpus, cache=cache) as mount:
            names = run(['find', mount / 'latest/'])
            clock.stop(mount)
        with rec.clock('duplicity'):
            count = corpora.listed(box, corpus)
        if names.count(b'\n') != count:
            raise Failure(f'{names.count(10)} names in the mount, duplicity lists {count}')
        # as many directories and files, computed
        with bare(bench, 475, 17, 0, 100, 400) as mount, rec.clock('find, bare FUSE', mount):
            run(['find', mount.path], discard=True)


@row('stat', 'mount + `find -ls`, cold (exact sizes need every volume; `-o sizes=bound` needs none)', 3)
def stat(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    for _ in rec.each_round():
        for name, options in (('dupfs', []), ('dupfs -o sizes=bound', ['-o', 'sizes=bound'])):
            cache = box.new_cache()
            with rec.clock(name) as clock, box.dupfs(corpus, *options, cache=cache) as mount:
                run(['find', mount / 'latest/', '-ls'], discard=True)
                clock.stop(mount)
        with rec.clock("restic's mount") as clock, restic_mount(bench) as mount:
            run(['find', restic_tree(mount), '-ls'], discard=True)
            clock.stop(mount)


@row('small', 'mount + one file of 30 KB, cold', 5, faster('dupfs', 'duplicity', 15),
     within('bytes fetched', 'bytes of manifests, signatures and one volume', 1.01))
def small_file(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    for _ in rec.each_round():
        cache = box.new_cache()
        with rec.clock('dupfs') as clock, box.dupfs(corpus, cache=cache) as mount:
            data = run(['cat', mount / f'latest/{SMALL}'])
            clock.stop(mount)
            rec.add('bytes fetched', mount.cost()[1])
            volumes = os.getxattr(mount / f'latest/{SMALL}', 'user.dupfs.volumes').decode().split()
        needed = [os.path.join(corpus.repository, name) for name in volumes] + corpus.objects('manifest') + corpus.objects('signatures')
        rec.add('bytes of manifests, signatures and one volume', sum(map(os.path.getsize, needed)))
        if data != open(os.path.join(corpus.newest, SMALL), 'rb').read():
            raise Failure(f'{SMALL} has other bytes in the mount')
        restore(box, corpus, rec.clock('duplicity'), os.path.join(corpus.newest, SMALL), '--path-to-restore', SMALL)


@row('tail', 'mount + last 4 KiB of the 300 MB file, cold', 3, faster('dupfs', 'duplicity', 20))
def tail(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    for _ in rec.each_round():
        cache = box.new_cache()
        with rec.clock('dupfs') as clock, box.dupfs(corpus, cache=cache) as mount:
            data = run(['tail', '-c', '4096', mount / f'latest/{BIG}'])
            clock.stop(mount)
            rec.add('bytes fetched', mount.cost()[1])
        if data != run(['tail', '-c', '4096', os.path.join(corpus.newest, BIG)]):
            raise Failure(f'{BIG} has another end in the mount')
        restore(box, corpus, rec.clock('duplicity'), os.path.join(corpus.newest, BIG), '--path-to-restore', BIG)


def bare(bench, *shape):
    """A synthetic tree of this shape without a backup: DIRS FILES WIDE MIN MAX."""
    return bench.box.served([bench.box.programs['bare_fuse'], *map(str, shape)], 'mnt/bare')


def restic(bench):
    """A restic repository of the full tree; the command that works on it."""
    box, corpus = bench.box, bench.corpus('main')
    repo = box.path('restic')
    command = ['restic', '--quiet', '--repo', repo]
    if not os.path.exists(box.path('restic/ready')):
        shutil.rmtree(repo, ignore_errors=True)
        run([*command, 'init'], env=box.env)
        run([*command, 'backup', '.'], env=box.env, cwd=corpus.full)
        open(box.path('restic/ready'), 'wb').close()
    shutil.rmtree(box.path('cache-restic'), ignore_errors=True)
    return command


def restic_mount(bench):
    return bench.box.served([*restic(bench), 'mount'], 'mnt/restic')


def restic_tree(mount):
    return mount / 'snapshots/latest/'


def borg(bench):
    """The name of a borg archive of the full tree."""
    box, corpus = bench.box, bench.corpus('main')
    repo = box.path('borg')
    if not os.path.exists(box.path('borg-ready')):
        for path in (repo, box.path('borg-home')):
            shutil.rmtree(path, ignore_errors=True)
        run(['borg', 'init', '--encryption', 'repokey', repo], env=box.env)
        run(['borg', 'create', f'{repo}::full', '.'], env=box.env, cwd=corpus.full)
        open(box.path('borg-ready'), 'wb').close()
    # its cache of chunks, not the record of known repositories
    shutil.rmtree(box.path('borg-home/.cache'), ignore_errors=True)
    return f'{repo}::full'


def decode(objects):
    """A command that decrypts and inflates these objects concurrently and discards the result."""
    names = '\n'.join(objects)
    return ['sh', '-c', f'printf %s "$0" | tr "\\n" "\\0" | xargs -0 -n 1 -P {os.cpu_count()} sh -c '
            '\'gpg --batch --quiet --decrypt "$0" >/dev/null 2>&1\'', names]


def floor(bench):
    """Concurrent decoding of all volumes of the full set, with the result discarded, then a copy of the plain tree."""
    box, corpus = bench.box, bench.corpus('main')
    volumes = [name for name in corpus.objects('.difftar') if '-full.' in name]
    return [decode(volumes), ['cp', '-a', corpus.full, box.target('floor')]]


@row('copy', 'mount + `cp -a` of the full snapshot, cold', 3, faster('dupfs', 'duplicity', 5), faster('dupfs', "restic's mount", 1),
     faster('dupfs', "borg's mount", 1), within('dupfs', 'the floor', 1.3), compare('the floor', 'duplicity'))
def copy(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    restic(bench), borg(bench)
    for i in rec.each_round():
        cache, target = box.new_cache(), box.target('copy')
        with rec.clock('dupfs') as clock, box.dupfs(corpus, cache=cache) as mount:
            run(['cp', '-a', mount / f'snapshots/{corpora.snapshot(0)}', target])
            clock.stop(mount)
            rec.add('bytes fetched', mount.cost()[1])
            rec.add('peak memory', mount.peak_memory())
        trees.check_same(target, corpus.full)
        steps = floor(bench)
        with rec.clock('the floor'):
            for step in steps:
                run(step, env=box.env)
        restore(box, corpus, rec.clock('duplicity'), corpus.full, '--time', str(corpora.backup_time(0)))
        target = box.target('copy')
        with rec.clock("restic's mount") as clock, restic_mount(bench) as mount:
            run(['cp', '-a', restic_tree(mount), target])
            clock.stop(mount)
        # restic 0.14 shows every time exactly but those of directories
        trees.check_same(target, corpus.full, ignore_dir_times=True)
        target, archive = box.target('copy'), borg(bench)
        with rec.clock("borg's mount") as clock, box.served(['borg', 'mount', '--foreground', archive], 'mnt/borg') as mount:
            run(['cp', '-a', mount.path, target])
            clock.stop(mount)
        trees.check_same(target, corpus.full, ignore_dir_times=True)
        if i == 0:
            extra(bench, rec)


def extra(bench, rec):
    """The restore commands of restic and borg, for comparison."""
    box = bench.box
    command, target = restic(bench), box.target('copy')
    with rec.clock("restic restore"):
        run([*command, 'restore', 'latest', '--target', target], env=box.env)
    archive, target = borg(bench), box.target('copy')
    os.makedirs(target)
    with rec.clock('borg extract'):
        run(['borg', 'extract', archive], env=box.env, cwd=target)


@row('deltas', '`cat` of the 300 MB file, five deltas deep, against the same from the full; tree read, volumes cold', 5,
     within('newest', 'full', 1.3))
def deltas(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    for i in rec.each_round():
        for name, state, tree in (('full', 0, corpus.full), ('newest', 5, corpus.newest)):
            with box.dupfs(corpus) as mount:
                path = mount / f'snapshots/{corpora.snapshot(state)}/{BIG}'
                run(['ls', os.path.dirname(path)])
                with rec.clock(name, mount):
                    run(['dd', f'if={path}', 'of=/dev/null', 'bs=1M'])
                rec.add(f'bytes fetched, {name}', mount.cost()[1])
                if i == 0 and not trees.same_file(path, os.path.join(tree, BIG)):
                    raise Failure(f'{path} has other bytes than the source')


@row('deep', 'mount + a 20 MB file 30 increments deep, cold', 3, faster('dupfs', 'duplicity', 10))
def deep(bench, rec):
    box, corpus = bench.box, bench.corpus('deep')
    wanted = os.path.join(corpus.newest, 'log/journal.db')
    for _ in rec.each_round():
        cache, target = box.new_cache(), box.path('out/deep')
        with rec.clock('dupfs') as clock, box.dupfs(corpus, cache=cache) as mount:
            run(['cp', mount / 'latest/log/journal.db', target])
            clock.stop(mount)
            rec.add('bytes fetched', mount.cost()[1])
        if not trees.same_file(target, wanted):
            raise Failure('log/journal.db has other bytes in the mount')
        restore(box, corpus, rec.clock('duplicity'), wanted, '--path-to-restore', 'log/journal.db')


@row('memory', '`cp -a` of everything from 200 MB volumes', 1, below('peak memory', (256 << 20) + 128_000_000))
def memory(bench, rec):
    box, corpus = bench.box, bench.corpus('large')
    for _ in rec.each_round():
        target = box.target('copy')
        with box.dupfs(corpus) as mount:
            with rec.clock('dupfs', mount):
                run(['cp', '-a', mount / 'latest/', target])
            rec.add('peak memory', mount.peak_memory())
        trees.check_same(target, corpus.newest)


@row('reread', 'a second `dd` of the 300 MB file, 1 MiB at a time, against the plain file in the page cache', 5,
     within('dupfs', 'the plain file', 1.5), within('dupfs', 'bare FUSE', 1.1))
def reread(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    plain = os.path.join(corpus.newest, BIG)
    size = os.path.getsize(plain)
    with box.dupfs(corpus) as mount, bare(bench, 1, 1, 0, size, size) as computed:
        ours = mount / f'latest/{BIG}'
        if not trees.same_file(ours, plain):
            raise Failure(f'{BIG} has other bytes in the mount')
        for _ in rec.each_round():
            for name, path in (('dupfs', ours), ('the plain file', plain), ('bare FUSE', computed / 'd0000/f000000')):
                run(['dd', f'if={path}', 'of=/dev/null', 'bs=1M'])
                with rec.clock(name):
                    run(['dd', f'if={path}', 'of=/dev/null', 'bs=1M'])
