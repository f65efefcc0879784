"""Draws a terminal session as an SVG in which the lines appear at the pace of the run.

usage: terminal.py script README.md            prints a script that runs the commands of the first console block
       terminal.py draw README.md OUTPUT       prints the picture of the output of that script
"""

import html
import re
import sys

COLUMNS = 100
LINE_HEIGHT = 19
CHARACTER_WIDTH = 8.4
MARGIN = 18
TITLE = 34
MARK = "--- command "
# Seconds: for typing a character, after a command, and the longest wait for its output.
TYPING, PAUSE, LONGEST = 0.02, 0.9, 1.5


def commands(readme):
    """Returns the commands of the first console block of a document."""
    block = open(readme, encoding="utf-8").read().split("```console\n", 1)[1].split("```", 1)[0]
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def print_script(readme):
    """Prints a script for sh that runs the commands, as on a terminal, and marks the begin of each with the time."""
    print("set -e\nexec 2>&1\nls() { command ls -C -w 80 \"$@\"; }")
    for command in commands(readme):
        print(f"echo '{MARK}'$(date +%s.%N)\n{command}")
    print(f"echo '{MARK}'$(date +%s.%N)")


def run_of(output):
    """Returns the seconds and the lines of output of each command."""
    times, lines = [], []
    for line in open(output, encoding="utf-8").read().splitlines():
        if line.startswith(MARK):
            times.append(float(line[len(MARK):]))
            lines.append([])
        elif lines:
            lines[-1].append(line)
    return [(after - before, out) for before, after, out in zip(times, times[1:], lines)]


def shown_lines(readme, output):
    """Returns the lines of the picture: the second at which each appears, its class and its text."""
    now, out = 0.5, []
    for command, (took, lines) in zip(commands(readme), run_of(output)):
        for number in range(0, len(command), COLUMNS - 2):
            out.append((now, "command", ("$ " if number == 0 else "  ") + command[number : number + COLUMNS - 2]))
        now += len(command) * TYPING + min(took, LONGEST)
        out += [(now, "output", line) for line in lines]
        now += PAUSE
    return out, now


def draw(readme, output):
    """Prints the picture."""
    lines, end = shown_lines(readme, output)
    width = round(COLUMNS * CHARACTER_WIDTH + 2 * MARGIN)
    height = TITLE + len(lines) * LINE_HEIGHT + MARGIN
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">')
    print("<title>A terminal session with dupfs: mount a backup, look at its snapshots, copy files back, unmount</title>")
    print("<style>")
    print("text { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; white-space: pre; fill: #c9d1d9; }")
    print(".command { fill: #ffffff; font-weight: bold; }")
    print("@keyframes show { from { opacity: 0; } to { opacity: 1; } }")
    print("@media (prefers-reduced-motion: no-preference) { text { animation: show 0.01s both; } }")
    print("</style>")
    print(f'<rect width="{width}" height="{height}" rx="8" fill="#161b22"/>')
    for number, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f")):
        print(f'<circle cx="{MARGIN + number * 18}" cy="17" r="6" fill="{colour}"/>')
    for number, (second, kind, text) in enumerate(lines):
        y = TITLE + (number + 1) * LINE_HEIGHT - 5
        text = html.escape(re.sub(r"\t", "        ", text), quote=False)
        print(f'<text xml:space="preserve" class="{kind}" x="{MARGIN}" y="{y}" style="animation-delay: {second:.2f}s">{text}</text>')
    print("</svg>")
    print(f"{len(lines)} lines, {end:.0f} s", file=sys.stderr)


def main():
    """Runs one of the two commands."""
    action, *rest = sys.argv[1:]
    {"script": print_script, "draw": draw}[action](*rest)


main()
