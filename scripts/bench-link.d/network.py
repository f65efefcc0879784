"""The link: two network namespaces, the emulated line between them, and an S3 server behind it."""

import collections
import mmap
import os
import shutil
import signal
import struct
import subprocess
import time

CLIENT_ADDRESS, SERVER_ADDRESS, PORT = '10.77.0.1', '10.77.0.2', 9000
ENDPOINT = f'http://{SERVER_ADDRESS}:{PORT}'
CREDENTIALS = {'AWS_ACCESS_KEY_ID': 'AKIDEXAMPLE', 'AWS_SECRET_ACCESS_KEY': 'wJalrXUtnFEMI', 'AWS_REGION': 'us-east-1'}

# Seconds of a round trip, and bytes per second.
PROFILES = {'A': (0.002, 250e6), 'B': (0.030, 12.5e6), 'C': (0.080, 3e6), 'D': (0.040, 50e6)}

# The part of the line that is left for the payload of full segments.
PAYLOAD_SHARE = 1448 / (1448 + 52 + 18)

CONTROL = struct.Struct('=4dq9q')


class Failure(Exception):
    """A failed step: one line for the user."""


Request = collections.namedtuple('Request', 'time port line range')
Counters = collections.namedtuple('Counters', 'wire_up wire_down packets_up packets_down drops_up drops_down connections payload_up payload_down')


def run(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **options)
    if done.returncode:
        lines = done.stderr.decode(errors='replace').strip().splitlines()
        raise Failure(f'`{" ".join(command)[:200]}` ended with {done.returncode}: {lines[-1] if lines else "without output"}')
    return done.stdout


class Network:
    """A link that exists within a `with` block."""

    def __init__(self, directory, program, rclone, buckets):
        self.directory, self.program, self.rclone, self.buckets = directory, program, rclone, buckets
        # Runs at the same time do not meet.
        self.client, self.server = (f'dupfs-{side}-{os.getpid()}' for side in ('client', 'server'))
        self.processes = []
        self.log = os.path.join(directory, 'requests.log')
        self.round_trip = self.rate = None

    def __enter__(self):
        try:
            self.set_up()
        except BaseException:
            self.tear_down()
            raise
        return self

    def __exit__(self, *_):
        self.tear_down()

    def set_up(self):
        for name in (self.client, self.server):
            run(['ip', 'netns', 'add', name])
            run(['ip', '-n', name, 'link', 'set', 'lo', 'up'])
        control = os.path.join(self.directory, 'control')
        with open(control, 'wb') as file:
            file.truncate(4096)
        open(self.log, 'wb').close()
        with open(control, 'r+b') as file:
            self.control = mmap.mmap(file.fileno(), 4096)
        self.choose('C')
        self.start([self.program, control, self.log, self.client, self.server], 'link')
        for name, own, other in ((self.client, CLIENT_ADDRESS, SERVER_ADDRESS), (self.server, SERVER_ADDRESS, CLIENT_ADDRESS)):
            self.wait_for(lambda name=name: subprocess.run(['ip', '-n', name, 'link', 'show', 'link0'], capture_output=True, check=False).returncode == 0)
            run(['ip', '-n', name, 'addr', 'add', own, 'peer', other, 'dev', 'link0'])
            run(['ip', '-n', name, 'link', 'set', 'link0', 'up', 'mtu', '1500'])
            # A connection must not know what an earlier one learned about the line.
            run([*self.inside(name), 'sysctl', '-qw', 'net.ipv4.tcp_no_metrics_save=1', 'net.ipv6.conf.all.disable_ipv6=1'])
        auth = f'{CREDENTIALS["AWS_ACCESS_KEY_ID"]},{CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}'
        # Without hashes as ETags: rclone would read each object to compute one.
        self.start([*self.inside(self.server), self.rclone, 'serve', 's3', '--addr', f'{SERVER_ADDRESS}:{PORT}', '--etag-hash', '',
                    '--auth-key', auth, self.buckets], 'server', env={**os.environ, 'RCLONE_CONFIG': '/dev/null'})
        self.wait_until_served(PORT)

    def wait_until_served(self, port):
        probe = f'exec 3<>/dev/tcp/{SERVER_ADDRESS}/{port}'
        self.wait_for(lambda: subprocess.run([*self.inside(self.client), 'bash', '-c', probe], capture_output=True, check=False).returncode == 0)

    def tear_down(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in (self.client, self.server):
            subprocess.run(['ip', 'netns', 'del', name], capture_output=True, check=False)

    def start(self, command, name, env=None):
        with open(os.path.join(self.directory, f'{name}.log'), 'ab') as log:
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)

    def wait_for(self, is_ready):
        limit = time.monotonic() + 20
        while not is_ready():
            for process in self.processes:
                if process.poll() is not None:
                    raise Failure(f'{process.args[0]} ended with {process.returncode}, see the logs in {self.directory}')
            if time.monotonic() > limit:
                raise Failure(f'the link is not up after 20 s, see the logs in {self.directory}')
            time.sleep(0.05)

    @staticmethod
    def inside(name):
        return ['nsenter', f'--net=/var/run/netns/{name}']

    def client_command(self, command):
        """The command in the client's namespace."""
        return [*self.inside(self.client), *command]

    def server_command(self, command):
        """The command in the server's namespace."""
        return [*self.inside(self.server), *command]

    # the line

    def choose(self, profile):
        self.round_trip, self.rate = PROFILES[profile]
        # The queue of a home router: 100 ms of the line, or one and a half round trips.
        queue = max(256e3, self.rate * max(0.1, 1.5 * self.round_trip))
        self.control[0:32] = struct.pack('=4d', self.rate, self.rate, self.round_trip / 2, queue)

    @property
    def payload_rate(self):
        """Bytes per second that a program can receive."""
        return self.rate * PAYLOAD_SHARE

    def floor(self, size, round_trips):
        """The least time in which `size` bytes come after `round_trips` dependent requests."""
        return size / self.payload_rate + round_trips * self.round_trip

    def interrupt(self, is_down):
        self.control[32:40] = struct.pack('=q', int(is_down))

    def counters(self):
        return Counters(*CONTROL.unpack(self.control[:CONTROL.size])[5:])

    # the log

    def log_position(self):
        return os.path.getsize(self.log)

    def requests_since(self, position):
        """The requests that were logged since, without repeated segments."""
        with open(self.log, 'rb') as file:
            file.seek(position)
            lines = file.read().decode('latin-1').splitlines()
        seen, found = set(), []
        for line in lines:
            at, kind, port, number, *rest = line.split(' ', 4)
            if kind != 'REQUEST' or (port, number) in seen:
                continue
            seen.add((port, number))
            text, _, range_ = rest[0].rpartition(' | ')
            found.append(Request(float(at), int(port), text, range_))
        return found


def stop_on_signals():
    """Makes a signal end the process through its `with` blocks."""
    def end(number, _):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Failure(f'{program} is missing')
