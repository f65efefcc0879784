"""Rows of the commands that need no mount, beside those of other programs."""

import os

import corpora
import trees
from box import Failure, run, run_measured
from measure import compare, faster, row, within
from rows_files import borg, decode, floor, restic, restore

PATTERN = '*.xml'


def dupfs(box, corpus, rec, name, command, *args):
    """Runs a command of dupfs with an empty cache, records its seconds and peak memory, and returns what it printed."""
    program = [box.programs['dupfs'], command, '--secret-key', box.secret_key, corpus.url, *args]
    env = {**box.dupfs_env, 'XDG_CACHE_HOME': box.new_cache()}
    with rec.clock(name):
        output, memory = run_measured(program, env)
    rec.add(f'peak memory, {name}', memory)
    return output


@row('restore', '`dupfs restore` of the full snapshot, cold', 3, within('dupfs', 'the floor', 1), faster('dupfs', '`cp -a` from the mount', 1),
     compare('dupfs', 'duplicity'), faster('dupfs', 'restic restore', 1), faster('dupfs', 'borg extract', 1))
def restore_full(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    restic(bench), borg(bench)
    for _ in rec.each_round():
        target = box.target('restore')
        dupfs(box, corpus, rec, 'dupfs', 'restore', '--time', str(corpora.backup_time(0)), target)
        trees.check_same(target, corpus.full)
        cache, target = box.new_cache(), box.target('copy')
        with rec.clock('`cp -a` from the mount') as clock, box.dupfs(corpus, cache=cache) as mount:
            run(['cp', '-a', mount / f'snapshots/{corpora.snapshot(0)}', target])
            clock.stop(mount)
        steps = floor(bench)
        with rec.clock('the floor'):
            for step in steps:
                run(step, env=box.env)
        restore(box, corpus, rec.clock('duplicity'), corpus.full, '--time', str(corpora.backup_time(0)))
        command, target = restic(bench), box.target('copy')
        with rec.clock('restic restore'):
            run([*command, 'restore', 'latest', '--target', target], env=box.env)
        archive, target = borg(bench), box.target('copy')
        os.makedirs(target)
        with rec.clock('borg extract'):
            run(['borg', 'extract', archive], env=box.env, cwd=target)


@row('verify', '`dupfs verify` of all sets, and `--deep`', 3, compare('verify', 'gpg over all volumes'),
     compare('verify', 'restic check --read-data'), compare('verify', 'borg check --verify-data'))
def verify(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    restic(bench), borg(bench)
    for _ in rec.each_round():
        dupfs(box, corpus, rec, 'verify', 'verify')
        dupfs(box, corpus, rec, 'verify --deep', 'verify', '--deep')
        step = decode(corpus.objects('.difftar'))
        with rec.clock('gpg over all volumes'):
            run(step, env=box.env)
        command = restic(bench)
        with rec.clock('restic check --read-data'):
            run([*command, 'check', '--read-data'], env=box.env)
        repository = borg(bench).partition('::')[0]
        with rec.clock('borg check --verify-data'):
            run(['borg', 'check', '--verify-data', repository], env=box.env)


@row('find', f"`dupfs find '{PATTERN}'` in the newest snapshot and `--all`, cold", 5, faster('find', "duplicity's list", 15),
     compare('find', 'restic find'), compare('find --all', "duplicity's list"))
def find(bench, rec):
    box, corpus = bench.box, bench.corpus('main')
    restic(bench)
    wanted = sum(name.endswith(PATTERN[1:]) for _, _, names in os.walk(corpus.newest) for name in names)
    for _ in rec.each_round():
        found = dupfs(box, corpus, rec, 'find', 'find', PATTERN)
        if found.count(b'\n') != wanted:
            raise Failure(f'dupfs finds {found.count(10)} of {wanted} names')
        dupfs(box, corpus, rec, 'find --all', 'find', '--all', PATTERN)
        with rec.clock("duplicity's list"):
            corpora.listed(box, corpus)
        command = restic(bench)
        with rec.clock('restic find'):
            run([*command, 'find', PATTERN], env=box.env)
