"""Rows of the table: measurements, goals, results."""

import os
import statistics
import time

ROWS = {}


class Row:
    """A row of the table. `measure(bench, rec)` runs it; `goals` judge what it recorded."""

    def __init__(self, name, title, rounds, goals, measure):
        self.name, self.title, self.rounds, self.goals, self.measure = name, title, rounds, goals, measure


def row(name, title, rounds, *goals):
    def keep(function):
        ROWS[name] = Row(name, title, rounds, goals, function)
        return function
    return keep


class Record:
    """Values by name, one of each a round: seconds, bytes or counts."""

    def __init__(self, rounds):
        self.rounds = rounds
        self.values = {}

    def add(self, name, value):
        self.values.setdefault(name, []).append(value)

    def clock(self, name, mount=None):
        return Clock(self, name, mount)

    def each_round(self):
        yield from range(self.rounds)


class Clock:
    """Records the seconds of a `with` block, and the processor seconds of the programs that it ran and of the server of `mount`."""

    def __init__(self, record, name, mount):
        self.record, self.name, self.mount = record, name, mount

    def __enter__(self):
        # pending writes of an earlier program are not counted
        os.sync()
        self.used = self.processor()
        self.start = time.perf_counter()
        return self

    def processor(self):
        times = os.times()
        return times.children_user + times.children_system + (self.mount.processor() if self.mount else 0)

    def stop(self, mount=None):
        """Ends the measurement before the end of the block. `mount`: one that was made in the block."""
        if self.start is not None:
            self.record.add(self.name, time.perf_counter() - self.start)
            self.mount = mount or self.mount
            self.record.add(processor_of(self.name), self.processor() - self.used)
            self.start = None

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()


def processor_of(name):
    return f'{name}, processor'


def ratios(a, b):
    return [x / y for x, y in zip(a, b)]


class Goal:
    """A goal of a row: (comparison, own value, other value, ratio, met)."""

    def __init__(self, text, own, peer, limit, at_least):
        self.text, self.own, self.peer, self.limit, self.at_least = text, own, peer, limit, at_least

    def judge(self, values):
        own, peer = values[self.own], values[self.peer]
        pairs = ratios(peer, own) if self.at_least else ratios(own, peer)
        middle = statistics.median(pairs)
        met = middle >= self.limit if self.at_least else middle <= self.limit
        return {'goal': self.text, 'own': middle_of(self.own, values), 'peer': middle_of(self.peer, values),
                'ratio': f'{middle:.2f} ({min(pairs):.2f} to {max(pairs):.2f})', 'met': met, 'short': '' if met else miss(middle, self.limit)}


class Limit:
    """An own value that has to stay below a number."""

    def __init__(self, text, own, limit):
        self.text, self.own, self.limit = text, own, limit

    def judge(self, values):
        own = values[self.own]
        middle = statistics.median(own)
        met = middle <= self.limit
        return {'goal': self.text, 'own': middle_of(self.own, values), 'peer': '', 'ratio': f'{middle / self.limit:.2f} of the limit',
                'met': met, 'short': '' if met else miss(middle, self.limit)}


def middle_of(name, values):
    """The median, and that of the processor time if it was measured."""
    shown = show(name, statistics.median(values[name]))
    cpu = values.get(processor_of(name))
    return f'{shown} ({statistics.median(cpu):.2f})' if cpu else shown


def miss(value, limit):
    factor = max(value / limit, limit / value)
    return f'{factor:.2f} times' if factor >= 1.995 else f'{(factor - 1) * 100:.0f} %'


def faster(own, peer, limit):
    text = f'faster than {peer}' if limit == 1 else f'at least {limit} times faster than {peer}'
    return Goal(text, own, peer, limit, at_least=True)


def within(own, peer, limit):
    return Goal(f'at most {limit} times {peer}', own, peer, limit, at_least=False)


class Comparison(Goal):
    """Describes how two values compare, without a goal."""

    def judge(self, values):
        return {**super().judge(values), 'met': None}


def compare(own, peer):
    return Comparison(f'for comparison: {own} by {peer}', own, peer, 0, at_least=True)


def below(own, limit):
    return Limit(f'{own} below {show(own, limit)}', own, limit)


def show(name, value):
    """A value with its unit, which its name determines."""
    if 'bytes' in name:
        return f'{value / 1e6:.2f} MB'
    if 'memory' in name:
        return f'{value / 1e6:.0f} MB'
    if 'MB/s' in name:
        return f'{value:.0f} MB/s'
    return f'{value:.3f} s' if value < 1 else f'{value:.2f} s'
