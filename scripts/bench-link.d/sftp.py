"""A real sshd behind the link, and the rows that read the backups from it: dupfs by rclone, sshfs with dupfs on it, and duplicity."""

import os
import shutil
import subprocess
import tempfile
import time

from measurement import Operation, Row
from network import SERVER_ADDRESS, Failure, run

PORT = 2222
DEBIAN_RCLONE = '/usr/bin/rclone'
DUMP = 'var/backups/mysql/shop.sql'
ONE_FILE = 'srv/www/one30k.bin'
MEMORY = '/dev/shm'

# TCP, the versions, the exchange of keys, two of the login, the channel, the subsystem, and the version of SFTP: before the first
# request. Then a listing of three requests, and for each object two.
LOGIN_ROUND_TRIPS, LIST_ROUND_TRIPS, OBJECT_ROUND_TRIPS = 8, 3, 2


class SftpServer:
    """An sshd at the far end of the link, with a user who logs in by a key."""

    def __init__(self, bench):
        self.network = bench.network
        self.directory = os.path.join(bench.directory, 'sftp')
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        for name in ('host', 'key'):
            if not os.path.exists(self.path(name)):
                run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', f'dupfs bench {name}', '-f', self.path(name)])
        shutil.copy(self.path('key.pub'), self.path('authorized'))
        with open(self.path('host.pub'), encoding='ascii') as key, open(self.path('known_hosts'), 'w', encoding='ascii') as known:
            known.write(f'[{SERVER_ADDRESS}]:{PORT} {key.read()}')
        self.write('client_config', f'Host *\n UserKnownHostsFile {self.path("known_hosts")}\n GlobalKnownHostsFile /dev/null\n'
                                    f' IdentityFile {self.path("key")}\n IdentitiesOnly yes\n')
        self.write('server_config', f'Port {PORT}\nListenAddress {SERVER_ADDRESS}\nHostKey {self.path("host")}\nPidFile none\n'
                                    f'UsePAM no\nAuthorizedKeysFile {self.path("authorized")}\nStrictModes no\n'
                                    'PermitRootLogin prohibit-password\nMaxStartups 100\nSubsystem sftp internal-sftp\n')
        # An account without a password may be locked. The other table of passwords is that of this process only.
        with open('/etc/shadow', encoding='utf-8') as shadow:
            lines = [line.split(':', 2) for line in shadow]
        self.write('shadow', ''.join(':'.join([user, '*' if user == 'root' else password, rest]) for user, password, rest in lines))
        os.makedirs('/run/sshd', exist_ok=True)
        script = f'mount --bind {self.path("shadow")} /etc/shadow && exec /usr/sbin/sshd -D -e -f {self.path("server_config")}'
        self.network.start(self.network.server_command(['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script]), 'sshd')
        self.network.wait_until_served(PORT)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w', encoding='utf-8') as file:
            file.write(text)

    @property
    def options(self):
        return f'-F {self.path("client_config")}'

    def url(self, bench, name):
        # The path is absolute.
        return f'sftp://root@{SERVER_ADDRESS}:{PORT}/{os.path.join(bench.backups.buckets, "dupfs", name)}'


def server(bench):
    """The sshd, which is started for the first row that needs it."""
    if bench.sftp is None:
        bench.sftp = SftpServer(bench)
    return bench.sftp


class Place:
    """Empty directories for one operation, and the mounts of it, which end with it."""

    def __init__(self, bench):
        self.bench = bench
        self.root = os.path.join(bench.directory, 'sftp-run')
        self.points = []

    def __enter__(self):
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ('cache', 'archive', 'mnt', 'sshfs'):
            os.makedirs(self.path(name))
        self.copy = tempfile.mkdtemp(prefix='dupfs-bench-link-', dir=MEMORY)
        return self

    def __exit__(self, *_):
        for point in reversed(self.points):
            limit = time.monotonic() + 20
            while os.path.ismount(point):
                lazy = ['-z'] if time.monotonic() > limit else []
                subprocess.run(['fusermount3', '-u', *lazy, point], capture_output=True, check=False)
                time.sleep(0.05)
        shutil.rmtree(self.copy, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.root, name)

    def inside(self, command):
        run(self.bench.network.client_command(command), env=self.bench.client_env)


def dupfs(program, rclone):
    """dupfs by sftp://, through this program rclone."""
    def mount(place, name):
        sftp = server(place.bench)
        mount_dupfs(place, program, ['--rclone', rclone, f'--ssh-options={sftp.options}', sftp.url(place.bench, name)])
    return mount


def sshfs(program):
    """dupfs on a directory that sshfs mounts."""
    def mount(place, name):
        sftp, point = server(place.bench), place.path('sshfs')
        place.points.append(point)
        remote = f'root@{SERVER_ADDRESS}:{os.path.join(place.bench.backups.buckets, "dupfs", name)}'
        place.inside(['sshfs', '-p', str(PORT), '-F', sftp.path('client_config'), '-o', 'ro', remote, point])
        mount_dupfs(place, program, [point])
    return mount


def mount_dupfs(place, program, arguments):
    point = place.path('mnt')
    place.points.append(point)
    log = os.path.join(place.bench.directory, 'dupfs.log')
    place.inside([program, 'mount', '--secret-key', place.bench.backups.key, '--cache-dir', place.path('cache'), '--log-file', log,
                  *arguments, point])


def programs(bench):
    """Each way to mount the backup, by its name in the table."""
    newest = bench.network.rclone
    for label, program in bench.programs.items():
        yield f'{label}, rclone {version(newest)}', dupfs(program, newest)
        if os.path.exists(DEBIAN_RCLONE):
            yield f'{label}, rclone {version(DEBIAN_RCLONE)}', dupfs(program, DEBIAN_RCLONE)
        yield f'{label} on sshfs', sshfs(program)


def version(rclone):
    return run([rclone, 'version']).decode().split()[1].lstrip('v')


def row(name, command, path=None):
    """Measures a shell command on a new mount, with the mount, and duplicity's restore of `path`, or its list. `{}` is the newest
    snapshot, and `{copy}` an empty directory."""
    def measure(bench):
        sftp = server(bench)
        for label, mount in programs(bench):
            with Place(bench) as place:
                facts = {}

                def work(place=place, mount=mount, facts=facts):
                    begin = time.monotonic()
                    mount(place, name)
                    facts['mount'] = time.monotonic() - begin
                    latest = os.path.join(place.path('mnt'), 'latest')
                    run(['bash', '-c', command.format(latest, copy=place.copy)], env={**os.environ, 'LC_ALL': 'C.UTF-8'})
                operation = bench.measured(work)
                yield label, Operation(**{**vars(operation), 'facts': facts})
        if not bench.with_peers:
            return
        with Place(bench) as place:
            options = [f'--ssh-options=-oUserKnownHostsFile={sftp.path("known_hosts")} -oIdentityFile={sftp.path("key")}',
                       '--archive-dir', place.path('archive')]
            if path is None:
                arguments = ['list-current-files', *options, sftp.url(bench, name)]
            else:
                one = ['--path-to-restore', path] if path else []
                arguments = ['restore', *one, *options, sftp.url(bench, name), os.path.join(place.copy, 'restored')]
            yield 'duplicity', bench.measured(lambda: place.inside([bench.backups.duplicity, *arguments]))
    return measure


def of(objects):
    """Dependent round trips for a number of objects, each of which is found by the one before."""
    return LOGIN_ROUND_TRIPS + LIST_ROUND_TRIPS + OBJECT_ROUND_TRIPS * objects


ROWS = [
    Row('sftp-names', 'from SFTP, with the mount: first `ls latest/`, 61 sets', 'notes', row('notes', 'ls {}/'), None, of(1), True),
    Row('sftp-one', 'from SFTP, with the mount: `cp` of a file of 30 KB, volumes of 25 MB', 'server',
        row('server', f'cp {{}}/{ONE_FILE} {{copy}}/', ONE_FILE), None, of(2), True),
    Row('sftp-dump', 'from SFTP, with the mount: `cp` of a dump of 200 MB, volumes of 25 MB', 'server',
        row('server', f'cp {{}}/{DUMP} {{copy}}/', DUMP), None, of(2), True),
    Row('sftp-all', 'from SFTP, with the mount: `cp -a` of everything, 11 sets', 'server',
        row('server', 'cp -a {}/. {copy}/', ''), None, of(2), True),
]

NEEDED = ('ssh', 'sshfs', 'ssh-keygen', 'unshare')


def check():
    """Fails if a program is missing that the rows need."""
    for program in NEEDED:
        if not shutil.which(program):
            raise Failure(f'{program} is missing: apt install sshfs openssh-client util-linux')
    if not os.path.exists('/usr/sbin/sshd'):
        raise Failure('sshd is missing: apt install openssh-server')
