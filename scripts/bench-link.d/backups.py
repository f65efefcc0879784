"""The backups that are read over the link, each made once by duplicity, and by restic from the same trees."""

import json
import os
import random
import shutil
import subprocess
import tarfile

from network import Failure, run

DAY = 86_400
# 2026-01-01T00:00:00Z
EPOCH = 1_767_225_600


def text(rng, size):
    words = [b'lorem', b'ipsum', b'dolor', b'sit', b'amet', b'consectetur', b'adipiscing']
    lines, length = [], 0
    while length < size:
        line = b' '.join(rng.choice(words) for _ in range(8)) + b' %016x\n' % rng.getrandbits(64)
        lines.append(line)
        length += len(line)
    return b''.join(lines)[:size]


def put(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
        file.write(content)


def dump(rng, size, path):
    """A database dump: half of it can be compressed away."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
        while file.tell() < size:
            rows = (b"(%d,'%s','%s',%d)" % (rng.getrandbits(24), rng.randbytes(16).hex().encode(), rng.randbytes(8).hex().encode(),
                                            rng.getrandbits(16)) for _ in range(400))
            file.write(b'INSERT INTO `orders` VALUES ' + b','.join(rows) + b';\n')
        file.truncate(size)


def change(path, offset, content):
    with open(path, 'r+b') as file:
        file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        file.write(content)


def append(path, content):
    with open(path, 'ab') as file:
        file.write(content)


def server(tree, state):
    """A web server: 8,105 files in 552 MB, among them 60 photos and a dump of 200 MB."""
    rng = random.Random(f'server {state}')
    assets, photos, sql = (os.path.join(tree, path) for path in ('srv/www/assets', 'srv/www/media', 'var/backups/mysql/shop.sql'))
    if state == 0:
        for i in range(40):
            put(f'{tree}/etc/conf{i:02}.d/app.conf', text(rng, rng.randint(300, 4000)))
        put(f'{tree}/etc/hosts', b'127.0.0.1 localhost\n')
        for directory in range(108):
            for i in range(74):
                size = int(min(400_000, max(200, rng.lognormvariate(9.9, 1.0))))
                content = text(rng, size) if i % 2 else rng.randbytes(size)
                put(f'{assets}/d{directory:03}/f{i:03}.{"txt" if i % 2 else "jpg"}', content)
        for i in range(60):
            put(f'{photos}/photo{i:02}.jpg', rng.randbytes(1_500_000 + rng.randint(0, 300_000)))
        put(f'{tree}/srv/www/one30k.bin', rng.randbytes(30_000))
        dump(rng, 200_000_000, sql)
        return
    for _ in range(20):
        append(f'{assets}/d{rng.randrange(108):03}/f{rng.randrange(1, 74, 2):03}.txt', text(rng, 500))
    put(f'{assets}/d{rng.randrange(108):03}/new{state}.jpg', rng.randbytes(40_000))
    change(f'{photos}/photo{rng.randrange(60):02}.jpg', 1000, rng.randbytes(3000))
    if state in (3, 6, 9):
        for _ in range(20):
            change(sql, rng.randrange(199_000_000), rng.randbytes(2000).hex().encode())


def notes(tree, state):
    """20,000 small files, of which a few change each day."""
    rng = random.Random(f'notes {state}')
    if state == 0:
        for directory in range(200):
            for i in range(100):
                put(f'{tree}/data/d{directory:03}/f{i:03}.txt', text(rng, rng.randint(500, 6000)))
        return
    for _ in range(10):
        append(f'{tree}/data/d{rng.randrange(200):03}/f{rng.randrange(100):03}.txt', text(rng, 200))
    put(f'{tree}/data/d{rng.randrange(200):03}/new{state}.txt', text(rng, 2000))


# The tree of each backup, the number of its sets, and the size of its volumes in megabytes.
BACKUPS = {'server': (server, 11, 25), 'large': (server, 1, 200), 'notes': (notes, 61, 200)}

# The repository of restic that has the same tree, where it is that of another backup.
RESTIC_OF = {'large': 'server'}
# Small files are at most this large, in bytes.
SMALL = 65_536


class Backups:
    """The buckets `dupfs`, with a prefix for each backup of duplicity, and `restic-NAME`."""

    def __init__(self, directory, duplicity, has_restic):
        self.directory, self.duplicity, self.has_restic = directory, duplicity, has_restic
        self.buckets = os.path.join(directory, 'buckets')
        self.key = os.path.join(directory, 'key.asc')
        self.env = {**os.environ, 'GNUPGHOME': os.path.join(directory, 'gnupg'), 'PASSPHRASE': '', 'RESTIC_PASSWORD': 'bench',
                    'XDG_CACHE_HOME': os.path.join(directory, 'cache'), 'LC_ALL': 'C.UTF-8', 'TZ': 'UTC'}

    def need(self, name):
        """Makes the backup unless an earlier run did."""
        self.make_key()
        done = os.path.join(self.directory, f'{name}.ready')
        if os.path.exists(done):
            return
        tree_of, count, volume_size = BACKUPS[name]
        target, source = os.path.join(self.buckets, 'dupfs', name), os.path.join(self.directory, 'source', name)
        restic, archive = os.path.join(self.buckets, f'restic-{name}'), os.path.join(self.directory, 'archive', name)
        print(f'   writing {name}: {count} sets', flush=True)
        for path in (target, source, restic, archive):
            shutil.rmtree(path, ignore_errors=True)
        os.makedirs(target)
        os.makedirs(source)
        with_restic = self.has_restic and name not in RESTIC_OF
        if with_restic:
            run(['restic', '-q', 'init', '-r', restic], env=self.env)
        for state in range(count):
            tree_of(source, state)
            run([self.duplicity, 'incremental' if state else 'full', '--current-time', str(EPOCH + DAY * state), '--archive-dir', archive,
                 '--encrypt-key', self.fingerprint(), '--volsize', str(volume_size), '--no-print-statistics', source, f'file://{target}'],
                env=self.env)
            if with_restic:
                run(['restic', '-q', 'backup', '-r', restic, '.'], env=self.env, cwd=source)
        shutil.rmtree(source)
        shutil.rmtree(archive)
        open(done, 'wb').close()

    def restic_bucket(self, name):
        """The bucket of restic with the tree of a backup, or None."""
        bucket = f'restic-{RESTIC_OF.get(name, name)}'
        return bucket if os.path.exists(os.path.join(self.buckets, bucket)) else None

    def places(self, name):
        """Small files in the first volume: {'start' | 'middle' | 'end': (path, stored bytes of the volume up to the file's end)}."""
        stored = os.path.join(self.directory, f'{name}.places')
        if not os.path.exists(stored):
            places = self.find_places(name)
            with open(stored, 'w', encoding='utf-8') as file:
                json.dump(places, file)
        with open(stored, encoding='utf-8') as file:
            return json.load(file)

    def find_places(self, name):
        directory = os.path.join(self.buckets, 'dupfs', name)
        volume = os.path.join(directory, next(entry for entry in os.listdir(directory) if '.vol1.difftar.' in entry and 'full' in entry))
        with subprocess.Popen(['gpg', '--batch', '--quiet', '--decrypt', volume], env=self.env, stdout=subprocess.PIPE) as gpg:
            with tarfile.open(fileobj=gpg.stdout, mode='r|') as tar:
                files = [(member.name.removeprefix('snapshot/'), member.offset_data + member.size) for member in tar
                         if member.isreg() and 0 < member.size <= SMALL and member.name.startswith('snapshot/')]
        chosen = {'start': files[0], 'middle': files[len(files) // 2], 'end': files[-1]}
        return {place: (path, self.stored_bytes(volume, end)) for place, (path, end) in chosen.items()}

    def stored_bytes(self, volume, end):
        """The bytes of a stored volume from which gpg gets the first `end` bytes of its contents, to 64 KiB."""
        low, high = 0, os.path.getsize(volume)
        while high - low > 65_536:
            middle = (low + high) // 2
            command = f'head -c {middle} "$1" | gpg --batch --quiet --decrypt 2>/dev/null | wc -c'
            if int(run(['bash', '-c', command, '-', volume], env=self.env)) >= end:
                high = middle
            else:
                low = middle
        return high

    def fingerprint(self):
        with open(os.path.join(self.directory, 'fingerprint'), encoding='ascii') as file:
            return file.read().strip()

    def make_key(self):
        """An RSA key without a passphrase, for the benchmarks only."""
        if os.path.exists(self.key):
            return
        os.makedirs(self.env['GNUPGHOME'], mode=0o700, exist_ok=True)
        gpg = ['gpg', '--batch', '--quiet', '--no-tty', '--yes', '--pinentry-mode', 'loopback', '--passphrase', '']
        run([*gpg, '--quick-gen-key', 'dupfs bench <bench@example.org>', 'rsa3072', 'sign,cert', 'never'], env=self.env)
        keys = run(['gpg', '--batch', '--with-colons', '--list-secret-keys'], env=self.env).decode()
        fingerprint = next(line.split(':')[9] for line in keys.splitlines() if line.startswith('fpr:'))
        run([*gpg, '--quick-add-key', fingerprint, 'rsa3072', 'encr', 'never'], env=self.env)
        with open(os.path.join(self.directory, 'fingerprint'), 'w', encoding='ascii') as file:
            file.write(fingerprint)
        secret = run([*gpg, '--armor', '--export-secret-keys', fingerprint], env=self.env)
        with open(os.open(self.key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as file:
            file.write(secret)

    def size(self, name, *parts):
        """Stored bytes of the objects with any of `parts` in their names."""
        directory = os.path.join(self.buckets, 'dupfs', name)
        names = [entry for entry in os.listdir(directory) if not parts or any(part in entry for part in parts)]
        if not names:
            raise Failure(f'{directory} has no object of {", ".join(parts)}')
        return sum(os.path.getsize(os.path.join(directory, entry)) for entry in names)
