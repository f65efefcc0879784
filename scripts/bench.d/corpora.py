"""Backups to measure, written once into the box for all later runs."""

import os
import shutil
import time

import trees
from box import Failure, run
from trees import DAY, EPOCH


class Corpus:
    """A backup, and the trees of its oldest and newest snapshots."""

    def __init__(self, box, name, encrypted=True):
        self.box = box
        self.name = name
        self.encrypted = encrypted
        self.dir = box.path(name)

    @property
    def repository(self):
        return os.path.join(self.dir, 'repo')

    @property
    def url(self):
        return f'file://{self.repository}'

    @property
    def full(self):
        """The tree of the full backup."""
        return os.path.join(self.dir, 'full')

    @property
    def newest(self):
        """The tree of the last increment, or of the full set if there is none."""
        path = os.path.join(self.dir, 'newest')
        return path if os.path.exists(path) else self.full

    @property
    def ready(self):
        return os.path.exists(os.path.join(self.dir, 'ready'))

    def finish(self):
        with open(os.path.join(self.dir, 'ready'), 'wb'):
            pass

    def objects(self, part):
        """Paths of the stored objects with `part` in their names."""
        return sorted(os.path.join(self.repository, name) for name in os.listdir(self.repository) if part in name)


def backup_time(state):
    """The time of the backup of a state: an hour after its files were written."""
    return EPOCH + DAY * state + 3600


def snapshot(state):
    """The name of the snapshot of a state."""
    return time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(backup_time(state)))


def key(box):
    """An RSA key without a passphrase, for the benchmarks only."""
    if os.path.exists(box.path('key.fingerprint')):
        return
    shutil.rmtree(box.path('gnupg'), ignore_errors=True)
    os.makedirs(box.path('gnupg'), mode=0o700)
    gpg = ['gpg', '--batch', '--quiet', '--no-tty', '--yes', '--pinentry-mode', 'loopback', '--passphrase', '']
    run([*gpg, '--quick-gen-key', 'dupfs bench <bench@example.org>', 'rsa3072', 'default', 'never'], env=box.env)
    output = run(['gpg', '--batch', '--with-colons', '--list-secret-keys'], env=box.env).decode()
    fingerprint = next(line.split(':')[9] for line in output.splitlines() if line.startswith('fpr:'))
    run([*gpg, '--quick-add-key', fingerprint, 'rsa3072', 'encrypt', 'never'], env=box.env)
    secret = run([*gpg, '--armor', '--export-secret-keys', fingerprint], env=box.env)
    with open(os.open(box.secret_key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as file:
        file.write(secret)
    with open(box.path('key.fingerprint'), 'w', encoding='ascii') as file:
        file.write(fingerprint)


def by_duplicity(box, name, states, volume_mb):
    """A corpus that real duplicity writes: a full set of the first state and an increment for each further one."""
    corpus = Corpus(box, name)
    if corpus.ready:
        return corpus
    print(f'   writing {name}', flush=True)
    shutil.rmtree(corpus.dir, ignore_errors=True)
    os.makedirs(corpus.repository)
    source, archive = os.path.join(corpus.dir, 'source'), os.path.join(corpus.dir, 'archive')
    last = 0
    for state, _ in enumerate(states(source)):
        command = box.duplicity('incremental' if state else 'full', corpus, f'--current-time={backup_time(state)}',
                                f'--volsize={volume_mb}', '--allow-source-mismatch', source, corpus.url, archive=archive)
        run(command, env=box.env)
        if not state:
            trees.copy(source, corpus.full)
        last = state
    if last:
        os.rename(source, os.path.join(corpus.dir, 'newest'))
    else:
        shutil.rmtree(source)
    shutil.rmtree(archive)
    corpus.finish()
    return corpus


def main(box):
    """572 MB in 8,087 files, five increments, 25 MB volumes."""
    return by_duplicity(box, 'main', trees.main_tree, 25)


def deep(box):
    """A file that 30 increments changed."""
    return by_duplicity(box, 'deep', trees.deep_tree, 25)


def small(box):
    """10,000 small files."""
    return by_duplicity(box, 'small', trees.small_tree, 25)


def large(box):
    """1.2 GB in 200 MB volumes."""
    return by_duplicity(box, 'large', trees.large_tree, 200)


def dumps(box):
    """A database dump in the layout of automysqlbackup."""
    return by_duplicity(box, 'dumps', trees.dumps_tree, 25)


def by_encoder(box, name, encrypted=True, tree=False, **shape):
    """A corpus that benches/corpus writes, checked by duplicity's listing of it."""
    corpus = Corpus(box, name, encrypted)
    if corpus.ready:
        return corpus
    print(f'   writing {name}', flush=True)
    shutil.rmtree(corpus.dir, ignore_errors=True)
    os.makedirs(corpus.dir)
    options = [f'{key}={value}' for key, value in shape.items()]
    if encrypted:
        options.append(f'recipient={box.fingerprint}')
    if tree:
        options.append(f'tree={os.path.join(corpus.dir, "newest")}')
    entries = int(run([box.programs['corpus'], f'repo={corpus.repository}', *options], env=box.env))
    count = listed(box, corpus)
    if count != entries:
        raise Failure(f'duplicity lists {count} entries of {name}, which has {entries}')
    with open(os.path.join(corpus.dir, 'entries'), 'w', encoding='ascii') as file:
        file.write(str(entries))
    corpus.finish()
    return corpus


def listed(box, corpus):
    """The number of entries that duplicity lists: one line each, after a few other lines."""
    output = run(box.duplicity('list-current-files', corpus, corpus.url), env=box.env).decode(errors='replace')
    return sum(1 for line in output.splitlines() if line[:4] in ('Mon ', 'Tue ', 'Wed ', 'Thu ', 'Fri ', 'Sat ', 'Sun '))


def million(box):
    """A million files, 200,000 of them in one directory, and 30 increments of 1,000 changes."""
    return by_encoder(box, 'million', tree=True, dirs=820, files=1000, wide=200_000, increments=30, changes=1000, volume=100_000_000)


def increments(box):
    """20,000 files and 300 increments."""
    return by_encoder(box, 'increments', encrypted=False, tree=True, dirs=20, files=1000, wide=0, increments=300, changes=200,
                      volume=1_000_000)


def volumes(box):
    """20,000 files in 10,000 volumes."""
    return by_encoder(box, 'volumes', encrypted=False, tree=True, dirs=20, files=1000, wide=0, increments=1, changes=20, volume=2000)
