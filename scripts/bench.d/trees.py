"""Source trees, the same on every machine: their content comes from a seed, never from the clock or the machine."""

import hashlib
import os
import random
import shutil
import stat
import tempfile

from box import Failure, run

KIB = 1024
EPOCH = 1_768_700_000  # 2026-01-18; a day later for each state
DAY = 86_400


class Content:
    """Bytes by number: halves of text that compresses and of noise that does not."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        words = [''.join(self.random.choices('abcdefghijklmnopqrstuvwxyz', k=self.random.randint(2, 10))) for _ in range(3000)]
        lines = []
        size = 0
        while size < 8 << 20:
            line = ' '.join(self.random.choices(words, k=9)) + f' {self.random.randrange(10**6)}\n'
            lines.append(line)
            size += len(line)
        self.text_pool = ''.join(lines).encode()

    def noise(self, size):
        return self.random.randbytes(size)

    def text(self, size):
        out = bytearray()
        while len(out) < size:
            start = self.random.randrange(len(self.text_pool) - 1)
            out += self.text_pool[start:start + min(256 * KIB, size - len(out))]
        return bytes(out)

    def mixed(self, size):
        """Text and noise in turn, a MiB each."""
        out = bytearray()
        while len(out) < size:
            piece = min(1 << 20, size - len(out))
            out += self.text(piece) if (len(out) >> 20) % 2 else self.noise(piece)
        return bytes(out)


class Tree:
    """A directory that changes from state to state. All times are those of the state."""

    def __init__(self, root, seed):
        self.root = root
        self.content = Content(seed)
        self.random = random.Random(seed + 1)
        self.state = 0
        os.makedirs(root)

    def path(self, name):
        return os.path.join(self.root, name)

    def when(self):
        return EPOCH + DAY * self.state

    def write(self, name, data):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'wb') as file:
            file.write(data)
        os.utime(path, (self.when(), self.when()))

    def remove(self, name):
        os.remove(self.path(name))

    def touch(self, name):
        os.utime(self.path(name), (self.when(), self.when()))

    def small(self, name, low, high):
        """A small file; every second one is text."""
        size = self.random.randrange(low, high)
        self.write(name, self.content.text(size) if self.random.random() < 0.5 else self.content.noise(size))

    def edit(self, name, places, size):
        """Overwrites a few places, inserts a little in one of them and appends some."""
        with open(self.path(name), 'r+b') as file:
            data = bytearray(file.read())
            for _ in range(places):
                at = self.random.randrange(len(data) - size)
                data[at:at + size] = self.content.noise(size)
            at = self.random.randrange(len(data))
            data[at:at] = self.content.text(KIB)
            data += self.content.text(size)
            file.seek(0)
            file.write(data)
        self.touch(name)

    def settle(self):
        """Directories get the time of the state too."""
        for where, _, _ in os.walk(self.root):
            os.utime(where, (self.when(), self.when()))

    def next(self):
        self.state += 1


def main_tree(root):
    """The corpus of the issue: 572 MB in 8,087 files. Yields once for each state: the full one and five increments."""
    tree = Tree(root, 4)
    tree.write('var/backups/dump.sql', tree.content.mixed(303_000_000))
    tree.write('etc/app/settings.xml', tree.content.text(30_000))
    names = [f'srv/site{i % 20:02}/d{i // 20 % 20:02}/file{i:05}.dat' for i in range(8085)]
    for name in names:
        tree.small(name, KIB, 64 * KIB)
    tree.settle()
    yield
    for state in range(1, 6):
        tree.next()
        tree.edit('var/backups/dump.sql', 5, 40 * KIB)
        for name in tree.random.sample(names, 40):
            tree.small(name, KIB, 64 * KIB)
        for name in tree.random.sample(names, 10):
            tree.remove(name)
            names.remove(name)
        for i in range(10):
            names.append(f'srv/site{i:02}/new{state}/file{i}.dat')
            tree.small(names[-1], KIB, 64 * KIB)
        tree.settle()
        yield


def deep_tree(root):
    """40 MB in 201 files, one of which changes in each of 30 increments."""
    tree = Tree(root, 30)
    tree.write('log/journal.db', tree.content.mixed(20_000_000))
    for i in range(200):
        tree.write(f'other/file{i:03}', tree.content.mixed(100_000))
    tree.settle()
    yield
    for _ in range(30):
        tree.next()
        tree.edit('log/journal.db', 4, 8 * KIB)
        tree.settle()
        yield


def small_tree(root):
    """10,000 files of 1 to 16 KB in 100 directories. The second state differs in one file more, so that both have all others in common."""
    tree = Tree(root, 10)
    for i in range(10_000):
        tree.small(f'd{i // 100:03}/f{i % 100:03}', KIB, 16 * KIB)
    tree.settle()
    yield
    tree.next()
    tree.write('later', b'later\n')
    tree.settle()
    yield


def large_tree(root):
    """1.2 GB in 24 files of 50 MB."""
    tree = Tree(root, 200)
    for i in range(24):
        tree.write(f'part{i:02}.img', tree.content.mixed(50_000_000))
    tree.settle()
    yield


def dumps_tree(root):
    """A dump of 480 MB in a .sql.bz2 in a .tbz2 of 300 MB; its SHA-256 goes beside the tree."""
    tree = Tree(root, 5)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(root)) as work:
        os.mkdir(os.path.join(work, 'latest'))
        dump = os.path.join(work, 'latest/whitehall.sql')
        data = b'-- MariaDB dump\n' + tree.content.mixed(480_000_000)
        with open(dump, 'wb') as file:
            file.write(data)
        with open(os.path.join(os.path.dirname(root), 'sha256'), 'w', encoding='ascii') as file:
            file.write(hashlib.sha256(data).hexdigest())
        del data
        run(['bzip2', dump])
        os.makedirs(tree.path('var/lib/automysqlbackup'))
        run(['tar', 'cjf', tree.path('var/lib/automysqlbackup/latest.tbz2'), '-C', work, 'latest'])
    tree.touch('var/lib/automysqlbackup/latest.tbz2')
    tree.settle()
    yield


def copy(source, target):
    """The tree as `cp -a` copies it."""
    shutil.copytree(source, target, symlinks=True)


def listing(root, ignore_dir_times=False):
    """Every entry below root: what stat shows of it."""
    out = {}
    for where, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(where, name)
            s = os.lstat(path)
            is_dir = stat.S_ISDIR(s.st_mode)
            when = None if is_dir and ignore_dir_times else int(s.st_mtime)
            out[os.path.relpath(path, root)] = (s.st_mode, None if is_dir else s.st_size, when)
    return out


def same_file(a, b):
    with open(a, 'rb') as one, open(b, 'rb') as two:
        while True:
            x, y = one.read(1 << 20), two.read(1 << 20)
            if x != y:
                return False
            if not x:
                return True


def check_same(got, wanted, ignore_dir_times=False):
    """Stops the run unless both trees have the same names, types, modes, times and bytes."""
    have, want = listing(got, ignore_dir_times), listing(wanted, ignore_dir_times)
    if have != want:
        odd = sorted(k for k in have.keys() | want.keys() if have.get(k) != want.get(k))
        raise Failure(f'{got} is not {wanted}: {len(odd)} entries differ, such as {odd[0]}: '
                         f'{have.get(odd[0])} for {want.get(odd[0])}')
    for name, (mode, _, _) in want.items():
        if stat.S_ISREG(mode) and not same_file(os.path.join(got, name), os.path.join(wanted, name)):
            raise Failure(f'{os.path.join(got, name)} has other bytes than {os.path.join(wanted, name)}')
