"""The rows: what a user does at a cold mount, the bytes and round trips that it needs, and the same with other programs."""

import os
import shutil
import subprocess
import tempfile
import time

import sftp
from measurement import Operation, Row
from network import ENDPOINT, Failure, run

MEMORY = '/dev/shm'
ONE_FILE, DUMP, PHOTOS = 'srv/www/one30k.bin', 'var/backups/mysql/shop.sql', 'srv/www/media'


class Session:
    """One program on one backup, with empty caches: mounted within a `with` block."""

    def __init__(self, bench, name):
        self.bench, self.name = bench, name
        self.point = os.path.join(bench.directory, 'mnt')
        self.cache = os.path.join(bench.directory, 'cache-cold')
        self.copy = os.path.join(MEMORY, f'dupfs-bench-link-{os.getpid()}')
        self.server = None

    def __enter__(self):
        shutil.rmtree(self.cache, ignore_errors=True)
        shutil.rmtree(self.copy, ignore_errors=True)
        for directory in (self.point, self.cache, self.copy):
            os.makedirs(directory, exist_ok=True)
        try:
            self.mount()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # A server of its own that is not mounted yet.
        if self.server is not None and not os.path.ismount(self.point):
            self.server.terminate()
        for _ in range(100):
            if not os.path.ismount(self.point):
                break
            subprocess.run(['fusermount3', '-u', self.point], capture_output=True, check=False)
            time.sleep(0.05)
        else:
            subprocess.run(['fusermount3', '-uz', self.point], check=False)
        if self.server is not None:
            self.server.wait(timeout=60)
        shutil.rmtree(self.copy, ignore_errors=True)

    def path(self, name=''):
        return os.path.join(self.latest, name)

    def shell(self, command):
        return lambda: run(['bash', '-c', command], env={**os.environ, 'LC_ALL': 'C.UTF-8'})


class DupfsSession(Session):
    """A mount by dupfs."""

    def __init__(self, bench, name, program, options=()):
        super().__init__(bench, name)
        self.program, self.options = program, options

    @property
    def latest(self):
        return os.path.join(self.point, 'latest')

    def mount(self):
        backups = self.bench.backups
        command = [self.program, 'mount', '--secret-key', backups.key, '--cache-dir', self.cache, '--s3-endpoint-url', ENDPOINT,
                   '--log-file', os.path.join(self.bench.directory, 'dupfs.log'), *self.options, f's3://dupfs/{self.name}', self.point]
        run(self.bench.network.client_command(command), env=self.bench.client_env)


class ResticSession(Session):
    """A mount by restic."""

    @property
    def latest(self):
        return os.path.join(self.point, 'snapshots', 'latest')

    def mount(self):
        bucket = self.bench.backups.restic_bucket(self.name)
        command = ['restic', '-q', '-r', f's3:{ENDPOINT}/{bucket}', '--cache-dir', self.cache, 'mount', self.point]
        self.server = subprocess.Popen(self.bench.network.client_command(command), env=self.bench.client_env, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 300
        while not os.path.ismount(self.point):
            if self.server.poll() is not None or time.monotonic() > limit:
                raise Failure('restic does not mount')
            time.sleep(0.005)


def duplicity(bench, name, *arguments):
    """Runs duplicity with an empty archive directory."""
    archive = os.path.join(bench.directory, 'archive-cold')
    shutil.rmtree(archive, ignore_errors=True)
    command = [bench.backups.duplicity, *arguments[:-1], '--archive-dir', archive, '--s3-endpoint-url', ENDPOINT,
               f's3://dupfs/{name}', *arguments[-1:]]
    return lambda: run(bench.network.client_command([part for part in command if part]), env=bench.client_env)


def sessions(bench, name):
    """The programs that mount: each build of dupfs, and restic."""
    for label, program in bench.programs.items():
        yield label, DupfsSession(bench, name, program)
    if bench.with_peers and bench.backups.restic_bucket(name):
        yield 'restic', ResticSession(bench, name)


def on_mount(name, command, before=None):
    """Measures a shell command on a cold mount by each program. `{}` is the newest snapshot, `{copy}` an empty directory."""
    def measure(bench):
        for label, session in sessions(bench, name):
            with session:
                fill = {'latest': session.path().rstrip('/'), 'copy': session.copy, 'mount': session.point}
                if before:
                    session.shell(before.format(**fill))()
                yield label, bench.measured(session.shell(command.format(**fill)))
    return measure


def first_listing(name):
    mounted = on_mount(name, 'ls {latest}/')

    def measure(bench):
        yield from mounted(bench)
        if bench.with_peers:
            yield 'duplicity', bench.measured(duplicity(bench, name, 'list-current-files', ''))
    return measure


def place_of(name, place):
    """`cp` of a small file at a place of a volume. duplicity restores it, with the listing and the tree."""
    def measure(bench):
        path, _ = bench.backups.places(name)[place]
        yield from on_mount(name, f'cp "{{latest}}/{path}" {{copy}}/', 'ls {latest}/')(bench)
        if bench.with_peers:
            with tempfile.TemporaryDirectory(dir=MEMORY) as target:
                yield 'duplicity', bench.measured(duplicity(bench, name, 'restore', '--path-to-restore', path, f'{target}/file'))
    return measure


def stored_before(name, place):
    return lambda backups: backups.places(name)[place][1]


def dump_of(name):
    def measure(bench):
        for label, session in sessions(bench, name):
            with session:
                session.shell(f'ls {session.path()}')()
                facts = {}
                operation = bench.measured(read_output(['cat', session.path(DUMP)], bench.client_env, facts))
                yield label, Operation(**{**vars(operation), 'facts': facts})
    return measure


def read_output(command, env, out):
    """Reads the output of a program, and stores the time of its first bytes."""
    def reading():
        begin = time.monotonic()
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as program:
            while program.stdout.read1(131_072):
                out.setdefault('first byte', time.monotonic() - begin)
        if program.returncode != 0:
            raise Failure(f'{command[0]} ended with {program.returncode}')
    return reading


def cold_command(bench, program, command, name, *operands):
    """The arguments of a command of dupfs at the near end of the link, on a backup and with an empty cache directory."""
    cache = os.path.join(bench.directory, 'cache-cold')
    shutil.rmtree(cache, ignore_errors=True)
    return bench.network.client_command([program, command, '--secret-key', bench.backups.key, '--cache-dir', cache,
                                         '--s3-endpoint-url', ENDPOINT, f's3://dupfs/{name}', *operands])


def cat_of(name):
    """`dupfs cat`, which also lists the backup and reads its newest tree."""
    def measure(bench):
        for label, program in bench.programs.items():
            command, facts = cold_command(bench, program, 'cat', name, DUMP), {}
            operation = bench.measured(read_output(command, bench.client_env, facts))
            yield label, Operation(**{**vars(operation), 'facts': facts})
    return measure


def verification_of(name):
    """`dupfs verify`, which also lists the backup."""
    def measure(bench):
        for label, program in bench.programs.items():
            command = cold_command(bench, program, 'verify', name)
            yield label, bench.measured(lambda command=command: run(command, env=bench.client_env))
    return measure


def signatures(name):
    return lambda backups: backups.size(name, '.sigtar', '.manifest')


def bound_photos(bench):
    for label, program in bench.programs.items():
        with DupfsSession(bench, 'server', program, ('-o', 'sizes=bound')) as session:
            session.shell(f'ls {session.path()}')()
            yield label, bench.measured(session.shell(f'ls -l {session.path(PHOTOS)}'))


def outage(bench):
    """`cp -a` while the line is down for 100 s, beginning two seconds after its start."""
    for label, program in bench.programs.items():
        with DupfsSession(bench, 'notes', program) as session:
            session.shell(f'ls {session.path()}')()
            lost = []

            def copy(session=session, lost=lost):
                copying = subprocess.Popen(['cp', '-a', f'{session.path()}.', session.copy], stderr=subprocess.PIPE)
                time.sleep(2)
                bench.network.interrupt(True)
                try:
                    time.sleep(100)
                finally:
                    bench.network.interrupt(False)
                lost.extend(copying.communicate()[1].splitlines())
            operation = bench.measured(copy)
            yield label, Operation(**{**vars(operation), 'facts': {'lost files': len(lost)}})


ROWS = {row.name: row for row in [
    Row('names-61', 'first `ls latest/`, 61 sets', 'notes', first_listing('notes'), signatures('notes'), 1),
    Row('names-11', 'first `ls latest/`, 11 sets', 'server', first_listing('server'), signatures('server'), 1),
    Row('snapshots', '`ls -l snapshots/`, 61 sets', 'notes', on_mount('notes', 'ls -l {mount}/snapshots/'), None, 1),
    Row('dump-25', '`cat` of a dump of 200 MB, volumes of 25 MB', 'server', dump_of('server'), None, 2),
    Row('dump-200', 'the same, volumes of 200 MB', 'large', dump_of('large'), None, 2),
    Row('cat-200', 'the same by `dupfs cat`, with the listing and the tree', 'large', cat_of('large'), None, 4),
    Row('one', '`cp` of a file of 30 KB, volumes of 25 MB', 'server',
        on_mount('server', f'cp {{latest}}/{ONE_FILE} {{copy}}/', 'ls {latest}/'), None, 2),
    Row('one-200', 'the same, volumes of 200 MB', 'large',
        on_mount('large', f'cp {{latest}}/{ONE_FILE} {{copy}}/', 'ls {latest}/'), None, 2),
    *(Row(f'{place}-200', f'`cp` of a small file at the {place} of a volume of 200 MB', 'large', place_of('large', place),
          stored_before('large', place), 3) for place in ('start', 'middle', 'end')),
    Row('photos', '`ls -l` of 60 photos', 'server', on_mount('server', f'ls -l {{latest}}/{PHOTOS}', 'ls {latest}/'), None, 2),
    Row('photos-bound', 'the same with `-o sizes=bound`', 'server', bound_photos, None, 1),
    Row('all', '`cp -a` of everything', 'server', on_mount('server', 'cp -a {latest}/. {copy}/', 'ls {latest}/'), None, 2),
    Row('all-61', 'the same, 61 sets of small changes', 'notes', on_mount('notes', 'cp -a {latest}/. {copy}/', 'ls {latest}/'), None, 2),
    Row('verify', '`dupfs verify` of everything', 'server', verification_of('server'), None, 4),
    Row('outage', 'the same with an outage of 100 s', 'notes', outage, None, 2),
    *sftp.ROWS,
]}
