"""Rows over unpacked/: a database dump in an archive, as automysqlbackup writes it."""

import contextlib
import hashlib
import os
import subprocess

from box import Failure, run
from measure import below, faster, row, within

ARCHIVE, DUMP = 'var/lib/automysqlbackup/latest.tbz2', 'latest/whitehall.sql'
PIPE = 'tar xjOf "$0" latest/whitehall.sql.bz2 | bunzip2 >/dev/null'


@contextlib.contextmanager
def on_cores(count):
    """Everything that is started in the block runs on this number of cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def first_byte(path):
    """Opens the file and reads its first bytes."""
    with open(path, 'rb', buffering=0) as file:
        if file.read(1) != b'-':
            raise Failure(f'{path} begins with another byte')


@row('unpacked', 'a 480 MB .sql in a .sql.bz2 in a .tbz2 of 300 MB, through `unpacked/`, the volumes decoded', 3,
     below('first byte', 1.0), within('dupfs, one core', 'tar xjOf | bunzip2, one core', 1.11),
     faster('dupfs, two cores', 'dupfs, one core', 1), within('dupfs, two cores', 'tar xjOf | bunzip2, two cores', 1.11))
def unpacked(bench, rec):
    box, corpus = bench.box, bench.corpus('dumps')
    stored = os.path.join(corpus.newest, ARCHIVE)
    want = open(os.path.join(corpus.dir, 'sha256'), encoding='ascii').read()
    for _ in rec.each_round():
        for count, cores in ((1, 'one core'), (2, 'two cores')):
            with on_cores(count), box.dupfs(corpus) as mount:
                run(['cat', mount / f'latest/{ARCHIVE}'], discard=True)
                dump = mount / f'unpacked/latest/{ARCHIVE}/{DUMP}'
                if count == 2:
                    with rec.clock('first byte', mount):
                        first_byte(dump)
            with on_cores(count), box.dupfs(corpus) as mount:
                run(['cat', mount / f'latest/{ARCHIVE}'], discard=True)
                with rec.clock(f'dupfs, {cores}', mount):
                    run(['cat', mount / f'unpacked/latest/{ARCHIVE}/{DUMP}'], discard=True)
                rec.add('peak memory', mount.peak_memory())
            with on_cores(count), rec.clock(f'tar xjOf | bunzip2, {cores}'):
                run(['sh', '-c', PIPE, stored])
        with box.dupfs(corpus) as mount:
            digest = hashlib.sha256()
            with subprocess.Popen(['cat', mount / f'unpacked/latest/{ARCHIVE}/{DUMP}'], stdout=subprocess.PIPE) as cat:
                for piece in iter(lambda: cat.stdout.read(1 << 20), b''):
                    digest.update(piece)
            if cat.returncode or digest.hexdigest() != want:
                raise Failure('the dump has other bytes in the mount')

