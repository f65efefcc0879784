"""One measured operation, and the rows of the table."""

import collections
import dataclasses
import statistics
import time
from typing import Callable, Optional


@dataclasses.dataclass
class Operation:
    """An operation over the link."""
    seconds: float
    # Payload bytes from the server.
    received: int
    connections: int
    # Requests by kind.
    requests: dict
    facts: dict = dataclasses.field(default_factory=dict)
    # The requests themselves, with seconds since the beginning.
    log: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Row:
    """A line of the table."""
    name: str
    title: str
    backup: str
    # Yields pairs of a program's label and an Operation.
    measure: Optional[Callable]
    # Bytes that the operation needs; without it those that it fetched.
    bytes: Optional[Callable]
    # Dependent round trips that it needs.
    round_trips: int
    # True if the programs read the same backup: then the operation needs the least bytes that one of them fetched.
    shares_backup: bool = False


def kind_of(line):
    method, _, path = line.partition(' ')
    path, _, query = path.split(' ')[0].partition('?')
    if method != 'GET':
        return method.lower()
    if 'list-type' in query or 'prefix=' in query:
        return 'list'
    for part, kind in (('manifest', 'manifest'), ('sigtar', 'signatures'), ('difftar', 'volume')):
        if part in path:
            return kind
    return 'get'


def measured(network, work):
    """Runs `work` and returns the Operation."""
    position, before, begin = network.log_position(), network.counters(), time.monotonic()
    work()
    seconds = time.monotonic() - begin
    after, requests = network.counters(), network.requests_since(position)
    kinds = collections.Counter(kind_of(request.line) for request in requests)
    log = [(round(request.time - begin, 3), request.port, request.line, request.range) for request in requests]
    return Operation(seconds, after.payload_down - before.payload_down, after.connections - before.connections, dict(kinds), {}, log)


def median(operations):
    """The operation of the median time."""
    ordered = sorted(operations, key=lambda operation: operation.seconds)
    chosen = ordered[(len(ordered) - 1) // 2]
    facts = {key: statistics.median_low(operation.facts[key] for operation in operations) for key in chosen.facts}
    return dataclasses.replace(chosen, facts=facts)
