"""Runs rows and writes the table. scripts/bench starts it."""

import argparse
import datetime
import json
import os
import signal
import sys

import corpora
import rows_commands
import rows_files
import rows_scale
import rows_unpacked
import table
from box import Box, Failure, run
from measure import ROWS, Record

assert rows_commands and rows_files and rows_scale and rows_unpacked  # they fill ROWS


class Bench:
    """The environment of rows: the box, and corpora that are made at their first use."""

    def __init__(self, box):
        self.box = box

    def corpus(self, name):
        corpora.key(self.box)
        return getattr(corpora, name)(self.box)

    def snapshots(self, name):
        """Names of the first and the second snapshot of a corpus."""
        self.corpus(name)
        return corpora.snapshot(0), corpora.snapshot(1)


def programs():
    """The paths of dupfs and of the programs of benches/."""
    output = run(['cargo', 'build', '--release', '--quiet', '--bin', 'dupfs', '--bench', 'corpus', '--bench', 'bare_fuse',
                '--message-format=json-render-diagnostics'])
    found = {}
    for line in output.splitlines():
        message = json.loads(line)
        if message.get('executable'):
            found[message['target']['name']] = message['executable']
    return found


def measured(bench, row, rounds):
    rec = Record(rounds or row.rounds)
    before = os.getloadavg()[0]
    row.measure(bench, rec)
    return {'values': rec.values, 'rounds': rec.rounds, 'load': [before, os.getloadavg()[0]],
            'commit': run(['git', 'rev-parse', '--short', 'HEAD']).decode().strip(),
            'date': datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M')}


def main():
    parser = argparse.ArgumentParser(prog='scripts/bench', description='Measures dupfs beside its peers and writes docs/BENCHMARKS.md.')
    parser.add_argument('--rounds', type=int, help='rounds of each row [default: as the row has it]')
    parser.add_argument('--page', default='docs/BENCHMARKS.md', help='the page whose table is written')
    parser.add_argument('--list', action='store_true', help='print the rows and stop')
    parser.add_argument('rows', nargs='*', metavar='ROW', help='rows to run [default: all]; the others keep what was measured last')
    args = parser.parse_args()
    if args.list:
        for name, row in ROWS.items():
            print(f'{name:14} {row.title}')
        return
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f'no row {unknown[0]}: there are {", ".join(ROWS)}')
    table.check(args.page)
    box = Box(os.environ['DUPFS_BENCH_DIR'], programs(), os.environ['DUPFS_TEST_DIR'])
    kept = box.path('results.json')
    results = json.load(open(kept, encoding='utf-8')) if os.path.exists(kept) else {}
    try:
        measure(box, args.rows or ROWS, args.rounds, results, kept)
    finally:
        box.leave()
        # the agent that gpg started for the key
        run(['gpgconf', '--kill', 'all'], env=box.env)
    table.write(args.page, ROWS, results)


def measure(box, names, rounds, results, kept):
    """Runs the rows, and stores the values of each at once."""
    for name in names:
        print(f'\n== {name}: {ROWS[name].title}', flush=True)
        results[name] = measured(Bench(box), ROWS[name], rounds)
        with open(kept, 'w', encoding='utf-8') as file:
            json.dump(results, file, indent=1)
        print(table.summary(ROWS[name], results[name]), flush=True)


if __name__ == '__main__':
    # so that mounts are unmounted
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except Failure as failure:
        sys.exit(f'bench: {failure}')
