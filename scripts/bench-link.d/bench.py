"""Measures operations over an emulated link and prints a table of them. scripts/bench-link starts it."""

import argparse
import collections
import json
import os
import shutil
import sys

import measurement
import sftp
from backups import Backups
from network import CREDENTIALS, PROFILES, Failure, Network, need, stop_on_signals
from rows import ROWS


class Bench:
    """The environment of the rows."""

    def __init__(self, directory, network, backups, programs, with_peers):
        self.directory, self.network, self.backups, self.programs = directory, network, backups, programs
        self.with_peers = with_peers
        # The server of SFTP, once a row needs it.
        self.sftp = None
        self.client_env = {**backups.env, **CREDENTIALS}

    def measured(self, work):
        return measurement.measured(self.network, work)


def requests_text(requests):
    return ', '.join(f'{count} {kind}' for kind, count in sorted(requests.items())) or 'none'


def line(row, network, backups, label, operations, least):
    """A line of the table. `least` are the least bytes that a program of the row fetched. The share is that of the link which
    the transfer used."""
    middle = measurement.median(operations)
    needed = row.bytes(backups) if row.bytes and label != 'restic' else least if row.shares_backup else middle.received
    floor = network.floor(needed, row.round_trips)
    share = middle.received / middle.seconds / network.payload_rate
    facts = ''.join(f', {name} {value:.2f} s' if isinstance(value, float) else f', {name} {value}' for name, value in middle.facts.items())
    seconds = f'{middle.seconds:.2f} s{facts}'
    if len(operations) > 1:
        ordered = sorted(operation.seconds for operation in operations)
        seconds += f' ({ordered[0]:.2f} to {ordered[-1]:.2f})'
    cells = [label, seconds, f'{middle.received / 1e6:.2f} MB', requests_text(middle.requests), f'{middle.seconds / floor:.2f}', f'{share:.0%}']
    return '| ' + ' | '.join(cells) + ' |'


def run_row(bench, row, profile, rounds, log):
    """Measures all programs in turn, round by round."""
    found = collections.defaultdict(list)
    for number in range(rounds):
        for label, operation in row.measure(bench):
            found[label].append(operation)
            print(f'   {profile} {row.name} round {number + 1}: {label} {operation.seconds:.2f} s, {operation.received / 1e6:.2f} MB, '
                  f'{operation.connections} connections, {requests_text(operation.requests)}', file=sys.stderr, flush=True)
            json.dump({'profile': profile, 'row': row.name, 'program': label, **vars(operation)}, log)
            log.write('\n')
            log.flush()
    return found


def program(text):
    label, _, path = text.rpartition('=')
    if not os.access(path, os.X_OK):
        raise argparse.ArgumentTypeError(f'{path} is no program')
    return label or 'dupfs', os.path.abspath(path)


def main():
    parser = argparse.ArgumentParser(prog='scripts/bench-link', description='Measures dupfs beside its peers over an emulated link.')
    parser.add_argument('--profile', action='append', choices=sorted(PROFILES), help='A: 2 ms, 250 MB/s; B: 30 ms, 12.5 MB/s; C: 80 ms, 3 MB/s; D: 40 ms, 50 MB/s [default: B and C, and D for SFTP]')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--program', action='append', type=program, metavar='LABEL=PATH', help='a build of dupfs; repeat it to compare builds')
    parser.add_argument('--without-peers', action='store_true', help='measure neither restic nor duplicity')
    parser.add_argument('--list', action='store_true', help='print the rows and stop')
    parser.add_argument('rows', nargs='*', metavar='ROW', help='rows to run [default: all]')
    args = parser.parse_args()
    if args.list:
        for row in ROWS.values():
            print(f'{row.name:14} {row.title}')
        return
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f'no row {unknown[0]}: there are {", ".join(ROWS)}')
    if os.geteuid() != 0:
        raise Failure('network namespaces need root')
    need('ip', 'nsenter', 'gpg')
    directory, environments = (os.path.abspath(os.environ[name]) for name in ('DUPFS_BENCH_LINK_DIR', 'DUPFS_TEST_DIR'))
    os.makedirs(directory, exist_ok=True)
    duplicity = os.path.join(environments, 'duplicity-3.2.1/bin/duplicity')
    backups = Backups(directory, duplicity, bool(shutil.which('restic')))
    rows = [ROWS[name] for name in args.rows or ROWS]
    if any(row in sftp.ROWS for row in rows):
        sftp.check()
    for name in dict.fromkeys(row.backup for row in rows):
        backups.need(name)
    rclone = os.path.join(environments, 'rclone-venv/bin/rclone')
    programs = dict(args.program or [program(os.environ['DUPFS_BENCH_PROGRAM'])])
    with Network(directory, os.environ['DUPFS_BENCH_LINK_PROGRAM'], rclone, backups.buckets) as network:
        bench = Bench(directory, network, backups, programs, not args.without_peers)
        for profile in args.profile or ['B', 'C', 'D']:
            # Without an option each row runs on the lines that it is about.
            chosen = [row for row in rows if args.profile or (row in sftp.ROWS) == (profile == 'D')]
            if not chosen:
                continue
            network.choose(profile)
            print(f'\n### Profile {profile}: {network.round_trip * 1e3:.0f} ms, {network.rate / 1e6:g} MB/s\n')
            print('| row | program | time: median (range) | bytes | requests | ratio to the floor | share of the link |')
            print('|---|---|---|---|---|---|---|')
            for row in chosen:
                with open(os.path.join(directory, 'operations.jsonl'), 'a', encoding='utf-8') as log:
                    found = run_row(bench, row, profile, args.rounds, log)
                title = f'**{row.name}**: {row.title}'
                least = min(measurement.median(operations).received for operations in found.values())
                for label, operations in found.items():
                    print(f'| {title} {line(row, network, backups, label, operations, least)}', flush=True)
                    title = ''


if __name__ == '__main__':
    stop_on_signals()
    try:
        main()
    except Failure as failure:
        sys.exit(f'bench-link: {failure}')
    except KeyboardInterrupt:
        sys.exit(130)
