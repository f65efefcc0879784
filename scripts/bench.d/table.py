"""The table of docs/BENCHMARKS.md, and the output during the measurement."""

import json
import os
import statistics
import textwrap

from box import Failure
from measure import middle_of, processor_of, show

BEGIN, END = '<!-- scripts/bench writes from here', '<!-- to here -->'


def summary(row, result):
    """Every value of a row, and its verdicts, for the terminal."""
    lines = []
    for name, values in result['values'].items():
        each = ' '.join(show(name, value) for value in values)
        lines.append(f'   {name}: {show(name, statistics.median(values))}  ({each})')
    for goal in row.goals:
        j = goal.judge(result['values'])
        word = {True: 'met   ', False: 'MISSED', None: '      '}[j['met']]
        lines.append(f'   {word} {j["goal"]}: {j["ratio"]}{" short by " + j["short"] if j["met"] is False else ""}')
    return '\n'.join(lines)


def reasons():
    """The reasons for missed goals, by row, written by hand after profiling."""
    path = os.path.join(os.path.dirname(__file__), 'reasons.json')
    with open(path, encoding='utf-8') as file:
        return json.load(file)


def verdict(judged):
    if judged['met'] is None:
        return ''
    return 'met' if judged['met'] else f'missed by {judged["short"]}'


def table_line(*cells):
    """A line of the table. A pipe inside a cell would begin another cell."""
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def kept_rows(text):
    """The rows of an existing table, which stay if the run has no results for them: their lines, reason and note, by name."""
    tables, reasons_, notes = {}, {}, {}
    name = None
    for line in text.splitlines():
        if line.startswith('| **'):
            name = line[4:].split('**', 1)[0]
            tables[name] = [line]
        elif line.startswith('|  |') and name:
            tables[name].append(line)
        elif line.startswith('- **'):
            name = line[4:].split('**', 1)[0]
            reasons_[name] = [line]
        elif line.startswith('  ') and name in reasons_:
            reasons_[name].append(line)
        elif ' UTC, commit ' in line:
            notes[line.split(':', 1)[0]] = line
    return {n: (tables[n], reasons_.get(n, []), [notes[n]] if n in notes else []) for n in tables}


def measured_row(name, row, result, why):
    """The same of a row that has results."""
    values = result['values']
    judged = [goal.judge(values) for goal in row.goals]
    named = {n for goal in row.goals for n in (goal.own, getattr(goal, 'peer', None))}
    rest = ', '.join(f'{n} {middle_of(n, values)}' for n in values if n not in named and not n.endswith(processor_of('')))
    table = []
    for i, (goal, j) in enumerate(zip(row.goals, judged)):
        title = f'**{name}**: {row.title}' if i == 0 else ''
        numbers = j['own'] + (f' / {j["peer"]}' if j['peer'] else '')
        table.append(table_line(title, j['goal'], numbers, j['ratio'], verdict(j)))
    if rest:
        title = f'**{name}**: {row.title}' if not row.goals else ''
        table.append(table_line(title, '', rest, '', ''))
    reason = []
    if any(j['met'] is False for j in judged) and name in why:
        reason = textwrap.wrap(f'- **{name}**: {why[name]}', 100, subsequent_indent='  ', break_on_hyphens=False)
    rounds = f'{result["rounds"]} round{"s" if result["rounds"] > 1 else ""}'
    note = (f'{name}: {rounds}, {result["date"]} UTC, commit {result["commit"]}, '
            f'load {result["load"][0]:.1f} before and {result["load"][1]:.1f} after.  ')
    return table, reason, [note]


def lines(rows, results, old):
    why, kept = reasons(), kept_rows(old)
    shown = []
    for name, row in rows.items():
        if name in results:
            shown.append(measured_row(name, row, results[name], why))
        elif name in kept:
            shown.append(kept[name])
    yield table_line('row', 'goal', 'measured', 'ratio: median (range)', 'verdict')
    yield '|---|---|---|---|---|'
    for table, _, _ in shown:
        yield from table
    yield ''
    if any(reason for _, reason, _ in shown):
        yield 'Reasons for missed goals:'
        yield ''
        for _, reason, _ in shown:
            yield from reason
        yield ''
    for _, _, note in shown:
        yield from note


def check(page):
    """Stops before hours of measuring if the page has no place for the table."""
    if not os.path.exists(page):
        raise Failure(f'there is no {page}')
    with open(page, encoding='utf-8') as file:
        text = file.read()
    if BEGIN not in text or END not in text:
        raise Failure(f'{page} has no line that begins with `{BEGIN}`, or none `{END}` after it')


def write(page, rows, results):
    with open(page, encoding='utf-8') as file:
        text = file.read()
    head, rest = text.split(BEGIN, 1)
    comment, rest = rest.split('\n', 1)
    old, tail = rest.split(END, 1)
    body = '\n'.join(lines(rows, results, old))
    with open(page, 'w', encoding='utf-8') as file:
        file.write(f'{head}{BEGIN}{comment}\n{body}\n{END}{tail}')
