"""The uploads of a web site, in the states of four nights: assets.py DIRECTORY NIGHT SECONDS makes NIGHT out of the night before.

The same bytes, modes, owners and times on every machine. SECONDS is the time of the night's backup.
"""
import os
import random
import sys

root, night, now = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(night)
# Debian's www-data, and another user of the site.
WEB, OTHER = 33, 10
MARKER = b"MARKER 5d1f0b: no byte of this may lie anywhere in the clear\n"
ODD = [b"two  blanks", b" leading", b"trailing ", b"-rf", b"star*[a-z]?", b"quote'\"`$(x)", b"back\\slash", b"new\nline", b"tab\t",
       "Währung – 価格.txt".encode(), b"not-utf8-\xff\xfe", b"x" * 255, b"~", b"...", b"#hash"]


def path(name):
    return os.path.join(root, name)


def put(name, data, mode=0o644, uid=WEB, gid=WEB, age=0):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with open(path(name), "wb") as f:
        f.write(data)
    os.chown(path(name), uid, gid)
    os.chmod(path(name), mode)
    os.utime(path(name), (now, now - 3600 - age))


def link(name, target):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    if os.path.lexists(path(name)):
        os.remove(path(name))
    os.symlink(target, path(name))
    os.chown(path(name), WEB, WEB, follow_symlinks=False)
    os.utime(path(name), (now, now - 7200), follow_symlinks=False)


def edit(name, change):
    with open(path(name), "rb") as f:
        data = bytearray(f.read())
    change(data)
    stat = os.lstat(path(name))
    put(name, bytes(data), stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)


def remove(name):
    if os.path.islink(path(name)) or os.path.isfile(path(name)):
        os.remove(path(name))
        return
    for directory, dirs, files in os.walk(path(name), topdown=False):
        for entry in files:
            os.remove(os.path.join(directory, entry))
        os.rmdir(directory)


def attachment(i):
    return b"attachment_data/file/%d/%d.csv" % (i // 12, i)


def first():
    for i in range(3000):
        put(attachment(i), rng.randbytes(rng.randrange(3000)), [0o644, 0o644, 0o664, 0o600][i % 4], age=i * 1000)
    for i in range(3):
        put(b"consultations/video-%d.bin" % i, rng.randbytes(5_000_000 + 77 * i))
    put(b"consultations/minutes.txt", MARKER * 30_000)
    for name in ODD:
        put(b"odd/" + name, name + b"\n" + MARKER)
    for i in range(20):
        put(b"empty/%d" % i, b"")
    put(b"private/of-root.key", MARKER, 0o600, 0, 0)
    put(b"private/of-another", MARKER, 0o640, OTHER, WEB)
    put(b"private/of-nobody-known", b"numbers without names\n", 0o644, 54321, 54322)
    link(b"links/relative", b"../consultations/minutes.txt")
    link(b"links/directory", b"../odd")
    link(b"links/dangling", b"../gone/away")
    link(b"links/absolute", b"/etc/hostname")
    link(b"links/odd\n\xff", b"\xfe nowhere")


def every_night():
    put(b"policy.pdf", b"policy of night %d\n" % night * (1000 + night))
    for i in rng.sample(range(3000), 60):
        if os.path.exists(path(attachment(i))):
            edit(attachment(i), lambda data: data.extend(b"appended in night %d" % night))
    for i in range(40):
        put(b"attachment_data/file/new-%d/%d.csv" % (night, i), rng.randbytes(2000))
    put(b"empty/of-night-%d" % night, b"")


def second():
    edit(b"consultations/video-0.bin", lambda data: data.extend(rng.randbytes(100_000)))
    for i in range(0, 60):
        remove(attachment(i))
    for i in range(60, 90):
        os.chmod(path(attachment(i)), 0o640)
        os.chown(path(attachment(i)), OTHER, WEB)
    os.rename(path(b"attachment_data/file/20"), path(b"attachment_data/file/moved-20"))

    def splice(data):
        data[2_000_000:2_000_100] = rng.randbytes(700)

    edit(b"consultations/video-1.bin", splice)
    for i in range(30):
        put(b"reports/2024/%02d.pdf" % i, MARKER + rng.randbytes(20_000), 0o640)
    link(b"reports/newest", b"2024/29.pdf")


def third():
    edit(b"consultations/video-2.bin", lambda data: data.__delitem__(slice(0, 1_000_000)))
    link(b"links/relative", b"../policy.pdf")


def fourth():
    # The loss that is detected later.
    remove(b"reports")
    remove(b"links/directory")
    put(b"links/directory/is-one-now", b"\n")


[first, second, third, fourth][night]()
every_night()
for directory, _, _ in os.walk(root, topdown=False):
    os.chown(directory, WEB, WEB)
    # As for real uploads: new files in it belong to the group.
    os.chmod(directory, 0o2775)
    os.utime(directory, (now, now - 1800))
