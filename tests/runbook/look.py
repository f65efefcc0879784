"""Checks the remains of the runbook.

look.py tree DIRECTORY [--contents]     each path with type, mode, owner, time, size, target and checksum, one per line; with --contents
                                        without owners and without set-id bits, which only root can restore
look.py find NEEDLES PATH...            files below the paths that contain one of the strings in the files in NEEDLES; exit code 1 if any
"""
import hashlib
import os
import stat
import sys


def checksum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def walk(top):
    yield top
    if os.path.isdir(top) and not os.path.islink(top):
        for name in sorted(os.listdir(top)):
            yield from walk(os.path.join(top, name))


def tree(top, contents):
    for path in walk(top):
        s = os.lstat(path)
        mode = s.st_mode & ~0o7000 if contents else s.st_mode
        owner = "" if contents else f"{s.st_uid}:{s.st_gid}"
        # duplicity stores whole seconds only.
        line = [ascii(path[len(top):]), stat.filemode(mode), owner, str(int(s.st_mtime))]
        if stat.S_ISREG(s.st_mode):
            line += [str(s.st_size), checksum(path)]
        elif stat.S_ISLNK(s.st_mode):
            line += [ascii(os.readlink(path))]
        print(" ".join(line))


def find(needles, tops):
    wanted = []
    for name in os.listdir(needles):
        with open(os.path.join(needles, name), "rb") as f:
            wanted.append((name, f.read()))
    keep = max(len(needle) for _, needle in wanted)
    files = found = 0
    for path in (p for top in tops for p in walk(top)):
        # A descriptor below /proc is a link, which is followed.
        if not os.path.isfile(path) or (os.path.islink(path) and not path.startswith(b"/proc/")):
            continue
        files += 1
        rest = b""
        with open(path, "rb") as f:
            while block := f.read(1 << 20):
                rest += block
                for name, needle in wanted:
                    if needle in rest:
                        print(f"{ascii(path)} contains {os.fsdecode(name)} as plaintext")
                        found += 1
                rest = rest[-keep:]
    print(f"   files searched: {files}")
    return found


if sys.argv[1] == "tree":
    tree(os.fsencode(sys.argv[2]), "--contents" in sys.argv[3:])
else:
    sys.exit(1 if find(os.fsencode(sys.argv[2]), [os.fsencode(p) for p in sys.argv[3:]]) else 0)
