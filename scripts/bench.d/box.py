"""The place where the benchmarks run: directories, programs, mounts and clocks."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time

PASSWORD = 'bench'
# A file system in memory, and what the largest row restores.
MEMORY, MOST_RESTORED = '/dev/shm', 2 << 30


class Failure(Exception):
    """A failed step: one line for the user."""


def run(command, env=None, cwd=None, discard=False):
    """Runs a command and returns what it printed, or nothing with `discard`. Stops the benchmark if it fails."""
    done = subprocess.run(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
                          stdout=subprocess.DEVNULL if discard else subprocess.PIPE)
    if done.returncode:
        lines = done.stderr.decode(errors='replace').strip().splitlines()
        raise Failure(f'`{" ".join(command)}` ended with {done.returncode}: {lines[-1] if lines else "without output"}')
    return done.stdout or b''


def run_measured(command, env):
    """As `run`. Returns what the command printed, and its peak memory in bytes."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0), errors.seek(0)
        if process.returncode:
            lines = errors.read().decode(errors='replace').strip().splitlines()
            raise Failure(f'`{" ".join(command)}` ended with {process.returncode}: {lines[-1] if lines else "without output"}')
        return output.read(), usage.ru_maxrss * 1024


def discard(path):
    """Removes a file or a tree, if it is there."""
    if os.path.isfile(path):
        os.remove(path)
    shutil.rmtree(path, ignore_errors=True)


class Box:
    """Paths, and the environment that keeps every program inside of them."""

    def __init__(self, root, programs, environments):
        self.root = os.path.abspath(root)
        self.programs = programs
        self.duplicity_program = os.path.join(environments, 'duplicity-3.2.1/bin/duplicity')
        self.memory = None
        for name in ('tmp', 'home', 'out', 'mnt'):
            os.makedirs(self.path(name), exist_ok=True)
        self.env = {k: v for k, v in os.environ.items() if k not in ('PASSPHRASE', 'SIGN_PASSPHRASE', 'XDG_CACHE_HOME')}
        self.env.update(HOME=self.path('home'), GNUPGHOME=self.path('gnupg'), TMPDIR=self.path('tmp'), LC_ALL='C.UTF-8', TZ='UTC',
                        PASSPHRASE='', RESTIC_PASSWORD=PASSWORD, BORG_PASSPHRASE=PASSWORD, RESTIC_CACHE_DIR=self.path('cache-restic'),
                        BORG_BASE_DIR=self.path('borg-home'), BORG_RELOCATED_REPO_ACCESS_IS_OK='yes',
                        BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK='yes')
        # duplicity prompts for a passphrase, which the key does not have, unless the variable is set and empty. dupfs would try it.
        self.dupfs_env = {k: v for k, v in self.env.items() if k != 'PASSPHRASE'}

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def fresh(self, name):
        """A directory that does not exist yet; earlier content is removed."""
        path = self.path(name)
        discard(path)
        return path

    def target(self, name):
        """As `fresh`, but in memory, for restored files, so that the programs are measured and not the disk."""
        if self.memory is None:
            free = shutil.disk_usage(MEMORY).free if os.path.isdir(MEMORY) else 0
            if free < MOST_RESTORED:
                raise Failure(f'{MEMORY} has {free >> 20} MiB free, {MOST_RESTORED >> 20} MiB are needed to restore into')
            self.memory = tempfile.mkdtemp(prefix='dupfs-bench-', dir=MEMORY)
        for left in os.listdir(self.memory):
            discard(os.path.join(self.memory, left))
        return os.path.join(self.memory, name)

    def leave(self):
        """Removes everything outside of the directory of the box."""
        if self.memory is not None:
            discard(self.memory)

    def new_cache(self):
        """An empty directory for XDG_CACHE_HOME."""
        path = self.fresh('cache-dupfs')
        os.makedirs(path)
        return path

    @property
    def secret_key(self):
        return self.path('key.secret.asc')

    @property
    def fingerprint(self):
        with open(self.path('key.fingerprint'), encoding='ascii') as file:
            return file.read().strip()

    # duplicity

    def duplicity(self, action, corpus, *args, archive=None, env=None):
        """The command that does `action`. With `archive` None its archive directory is new, as on another machine."""
        archive = archive or self.fresh('archive')
        options = ['--archive-dir', archive, '--tempdir', self.path('tmp'), '--no-print-statistics']
        if corpus.encrypted:
            options += ['--encrypt-key', self.fingerprint, '--gpg-options', '--trust-model always --pinentry-mode loopback']
        else:
            options += ['--no-encryption']
        return [self.duplicity_program, action, *options, *args]

    # mounts

    @contextlib.contextmanager
    def dupfs(self, corpus, *options, cache=None, point='mnt/dupfs'):
        """A mount of the corpus. `cache`: the XDG_CACHE_HOME to use; without, a new and empty one."""
        mount = Mount(self.path(point))
        env = {**self.dupfs_env, 'XDG_CACHE_HOME': cache or self.new_cache()}
        keys = ['--secret-key', self.secret_key] if corpus.encrypted else []
        try:
            run([self.programs['dupfs'], 'mount', *keys, *options, corpus.url, mount.path], env=env)
            yield mount
        finally:
            mount.leave()

    @contextlib.contextmanager
    def served(self, command, point, env=None):
        """A program that serves a mount in the foreground, until it is unmounted."""
        mount = Mount(self.path(point))
        with open(self.path('out/server.log'), 'wb') as log:
            server = subprocess.Popen([*command, mount.path], env=env or self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            limit = time.monotonic() + 120
            while not os.path.ismount(mount.path):
                if server.poll() is not None or time.monotonic() > limit:
                    raise Failure(f'{command[0]} does not mount: see {log.name}')
                time.sleep(0.005)
            mount.pid = server.pid
            yield mount
        finally:
            mount.leave()
            server.wait(timeout=60)


class Mount:
    """A mount point in use."""

    def __init__(self, path):
        self.path = path
        self.pid = None
        self.leave()
        os.makedirs(path, exist_ok=True)

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def leave(self):
        for _ in range(100):
            if not os.path.ismount(self.path) and not self.dead():
                return
            subprocess.run(['fusermount3', '-u', self.path], stderr=subprocess.DEVNULL, check=False)
            time.sleep(0.02)
        subprocess.run(['fusermount3', '-uz', self.path], check=False)
        raise Failure(f'{self.path} could not be unmounted')

    def dead(self):
        try:
            os.lstat(self.path)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def server(self):
        if self.pid is None:
            self.pid = int(os.getxattr(self.path, 'user.dupfs.pid').split()[0])
        return self.pid

    def peak_memory(self):
        """The peak memory of its process, in bytes."""
        with open(f'/proc/{self.server()}/status', encoding='ascii') as status:
            for line in status:
                if line.startswith('VmHWM:'):
                    return int(line.split()[1]) * 1024
        raise Failure(f'process {self.pid} has no VmHWM')

    def processor(self):
        """Processor seconds of its process so far."""
        with open(f'/proc/{self.server()}/stat', encoding='ascii', errors='replace') as file:
            fields = file.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def cost(self):
        """The fetches of dupfs so far: (requests, bytes)."""
        words = os.getxattr(self.path, 'user.dupfs.cost').decode().split()
        return int(words[words.index('get') - 1]), int(words[words.index('bytes') - 1])
