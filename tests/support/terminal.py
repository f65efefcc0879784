"""Runs a program on a new terminal and types into it.

Reads JSON from standard input: {"argv": [...], "cwd": ..., "steps": [[text to wait for, text to type, file to create
once the first was shown, file to wait for before the second is typed; null for no file], ...]}. Writes JSON: {"output":
what the terminal showed, "code": the exit code as a shell shows it, "echo": is the echo on, "signals": does the terminal
send signals, "seconds": from the last text typed to the end}. A text or a file that does not appear within 60 seconds
ends the program.
"""

import fcntl
import json
import os
import select
import subprocess
import sys
import termios
import time

LIMIT = 60

task = json.load(sys.stdin)
master, slave = os.openpty()


def take_terminal():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


child = subprocess.Popen(
    task["argv"], stdin=slave, stdout=slave, stderr=slave, cwd=task.get("cwd"), preexec_fn=take_terminal
)
shown = b""


def read_some(until):
    """Appends what the terminal shows next; false if nothing came in time."""
    global shown
    ready, _, _ = select.select([master], [], [], max(0, until - time.monotonic()))
    if ready:
        shown += os.read(master, 65536)
    return bool(ready)


position = 0
typed_at = time.monotonic()
for expected, typed, created, file in task["steps"]:
    until = time.monotonic() + LIMIT
    while (found := shown.find(expected.encode(), position)) < 0:
        if not read_some(until):
            child.kill()
            sys.exit(f"{expected!r} does not appear in {shown!r}")
    position = found + len(expected)
    if created is not None:
        open(created, "w").close()
    while file is not None and not os.path.exists(file):
        if time.monotonic() > until:
            child.kill()
            sys.exit(f"{file!r} does not appear; the program showed {shown!r}")
        read_some(time.monotonic() + 0.05)
    os.write(master, typed.encode())
    typed_at = time.monotonic()
until = time.monotonic() + LIMIT
while child.poll() is None:
    if time.monotonic() > until:
        child.kill()
        sys.exit(f"the program does not end; it showed {shown!r}")
    read_some(time.monotonic() + 0.05)
seconds = time.monotonic() - typed_at
while read_some(time.monotonic() + 0.05):
    pass
modes = termios.tcgetattr(slave)[3]
code = child.returncode if child.returncode >= 0 else 128 - child.returncode
json.dump(
    {
        "output": shown.decode(errors="backslashreplace"),
        "code": code,
        "echo": bool(modes & termios.ECHO),
        "signals": bool(modes & termios.ISIG),
        "seconds": seconds,
    },
    sys.stdout,
)
