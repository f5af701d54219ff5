"""Starts the servers that the benchmarks measure: our broker, and, where its source is at hand, the C program that does
the least that any broker must do for the same requests."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMITS = ROOT.parent / "shared" / "limits"
PAGE_CACHE, FSYNC = "page-cache", "fsync"
MEGABYTE = 1_000_000
FIRST_ANSWER_LIMIT = 60  # seconds
STOP_LIMIT = 60


class Fault(Exception):
    """What keeps a measurement from being made, in a sentence that says what to do."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(build, name):
    """A program that was built before; the scripts build nothing, so that what they measure is what you built."""
    path = pathlib.Path(build) / name
    if not path.is_file():
        raise Fault(f"{path} is not there: build it first (swift build -c release --product {name})")
    return path


def kserve(folder):
    """Compiles the C server into the folder; None where its source or a compiler is not at hand."""
    sources = [LIMITS / "kserve.c", LIMITS / "crc32c.c"]
    compiler = shutil.which("cc")
    if not compiler or not all(source.is_file() for source in sources):
        return None
    path = pathlib.Path(folder) / "kserve"
    flags = ["-O3", "-march=x86-64-v2"]
    made = subprocess.run(
        [compiler, *flags, "-o", str(path), *map(str, sources), "-lpthread"], capture_output=True, text=True)
    if made.returncode != 0:
        raise Fault(f"the C server does not compile:\n{made.stderr.strip()}")
    return path


def logs(folder):
    return f"{folder}/log"


def martlet_command(path, port, folder, durability, further=None):
    settings = {
        "listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": logs(folder),
        "martlet.keeper.dir": f"{folder}/keeper",
        "martlet.cut.dir": f"{folder}/cut",
        # topics come and go by the gigabyte: what is deleted has to leave the page cache and the disk
        "log.segment.delete.delay.ms": "0",
        # all members of a group come at once, and one generation is enough
        "group.initial.rebalance.delay.ms": "1000",
        "martlet.metrics.listener": "",
    }
    if durability == PAGE_CACHE:
        settings["martlet.durability"] = "page-cache"
    settings.update(further or {})
    command = [str(path), "server"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return command


def kserve_command(path, port, folder, durability):
    return [str(path), str(port), str(folder)] + (["fsync"] if durability == FSYNC else [])


def api_versions_request():
    """ApiVersions 3, whose answer begins with the size, the correlation id and an error code."""
    name = b"bench"
    body = (b"\x00\x12\x00\x03" + b"\x00\x00\x00\x01" + len(name).to_bytes(2, "big") + name + b"\x00"
            + bytes([len(name) + 1]) + name + b"\x02" + b"1" + b"\x00")
    return len(body).to_bytes(4, "big") + body


def asks_and_is_answered(port):
    """Whether a server answers ApiVersions on the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(api_versions_request())
            answer = b""
            while len(answer) < 10:
                piece = connection.recv(10 - len(answer))
                if not piece:
                    return False
                answer += piece
    except OSError:
        return False
    if answer[4:] != b"\x00\x00\x00\x01\x00\x00":
        raise Fault(f"the server answers ApiVersions with {answer.hex()}")
    return True


def produced(port, topic):
    """Sends Produce 3 with acks=all and a batch of one record for partition 0; the error code, or None where the connection ends."""
    import struct
    # attributes, deltas of time and offset, no key, a value of one byte, no headers
    record = bytes([0, 0, 0, 1, 2]) + b"x" + b"\x00"
    record = bytes([len(record) * 2]) + record
    now = int(time.time() * 1000)
    checked = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + record
    batch = struct.pack(">iBI", -1, 2, crc32c(checked)) + checked
    batch = struct.pack(">qi", 0, len(batch)) + batch
    name = topic.encode()
    body = (struct.pack(">hhihhhii", 0, 3, 1, -1, -1, -1, 30_000, 1) + struct.pack(">h", len(name)) + name
            + struct.pack(">iii", 1, 0, len(batch)) + batch)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = b""
            while len(answer) < 4 or len(answer) < 4 + struct.unpack(">i", answer[:4])[0]:
                piece = connection.recv(4096)
                if not piece:
                    return None
                answer += piece
    except OSError:
        return None
    # size, correlation id, topics, name, partitions, index, error
    return struct.unpack_from(">h", answer, 4 + 4 + 4 + 2 + len(name) + 4 + 4)[0]


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


class Server:
    """A server with a folder of its own, both gone at the end of the `with`."""

    def __init__(self, label, path, command, durability, folder):
        self.label = label
        self.durability = durability
        self.folder = pathlib.Path(folder)
        self.port = free_port()
        self._command = command(path, self.port, self.folder, durability)
        self._process = None
        self.first_answer_seconds = None

    @property
    def pid(self):
        return self._process.pid

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self.start()

    def start(self):
        with open(self.folder / "output", "wb") as output:
            began = time.monotonic()
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder)
        try:
            while not asks_and_is_answered(self.port):
                self.check_that_it_runs()
                if time.monotonic() - began > FIRST_ANSWER_LIMIT:
                    raise Fault(f"{self.label} answers nothing for {FIRST_ANSWER_LIMIT} s; it says:\n{self.tail()}")
                time.sleep(0.001)
            self.first_answer_seconds = time.monotonic() - began
        except BaseException:
            self.__exit__()
            raise
        return self

    def stop(self):
        """Stops it in order, if it runs; how long that takes."""
        began = time.monotonic()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return time.monotonic() - began

    def seconds_to_first_produce(self, topic):
        """Starts it anew, on the data that it has; how long until it has acknowledged a record."""
        began = time.monotonic()
        self.start()
        while True:
            self.check_that_it_runs()
            error = produced(self.port, topic)
            if error == 0:
                return time.monotonic() - began
            if time.monotonic() - began > FIRST_ANSWER_LIMIT:
                raise Fault(f"{self.label} answers a Produce with error {error} for {FIRST_ANSWER_LIMIT} s")
            time.sleep(0.005)

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_that_it_runs(self):
        if self._process.poll() is not None:
            raise Fault(f"{self.label} ended with status {self._process.returncode}; it says:\n{self.tail()}")

    def tail(self):
        try:
            lines = (self.folder / "output").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join("    " + line for line in lines[-8:])

    def resident_megabytes(self):
        """All that is resident, and what of it is memory of its own rather than of mapped files."""
        sizes = {}
        for line in open(f"/proc/{self.pid}/status"):
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssAnon"):
                sizes[name] = int(value.split()[0]) * 1024 / MEGABYTE
        return sizes["VmRSS"], sizes["RssAnon"]


def leave_in_order_when_told():
    """Ends like an interrupt when told to terminate, so that no server is left behind."""
    def leave(*_):
        sys.exit(143)
    signal.signal(signal.SIGTERM, leave)


def data_folder(given):
    """Where servers keep their data: a folder of this process, by default on the disk that the project is on, since the
    temporary directory is memory on many machines and makes every sync free."""
    base = pathlib.Path(given) if given else ROOT / ".build"
    return base / f"bench-{os.getpid()}"
