"""What the driven tests share: brokers to start, kill and look at, and how a test is registered."""
import contextlib, os, pathlib, random, re, shutil, signal, socket, subprocess, tarfile, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SHARED = ROOT.parent / "shared"
PROGRAM, SEED, KEEP = "", 0, False
_tests, _living = [], []


class Skip(Exception):
    """The reason why a test cannot be run here."""


def test(function):
    """Registers a test. Its name is what it says with spaces for underscores."""
    _tests.append((function.__module__, function))
    return function


def family(function):
    """Registers a generator of (kind, name, text): one row for each of many tests that are not functions here."""
    function.is_family = True
    return test(function)


def is_family(function):
    return getattr(function, "is_family", False)


def tests_of(suite):
    return [(f"{suite}.{f.__name__}", f) for module, f in _tests if module == suite]


def seeded(name):
    """Randomness that the printed seed brings back."""
    return random.Random(f"{SEED}:{name}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(probe, seconds=10, every=0.02, what="it"):
    end = time.monotonic() + seconds
    while True:
        got = probe()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {seconds} seconds")
        time.sleep(every)


_everywhere = {}


@contextlib.contextmanager
def everywhere(settings):
    """Every broker that is made inside has these settings, unless it is given others."""
    _everywhere.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del _everywhere[name]


class Broker:
    """A broker of the built program, on a port and a folder of its own."""

    def __init__(self, settings=None, folder=None, port=None, flags=(), program=None, environment=None):
        self.program = program or PROGRAM
        self.environment = environment or {}
        self.port = port or free_port()
        self.own_folder = folder is None
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="martlet-"))
        self.settings = {
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": f"{self.folder}/log",
            "martlet.keeper.dir": f"{self.folder}/keeper",
            "martlet.cut.dir": f"{self.folder}/cut",
            # the default is one port for all brokers of a machine
            "martlet.metrics.listener": "",
            **_everywhere,
            **(settings or {}),
        }
        self.flags = list(flags)
        self.process = None
        self.starts = 0
        self.output_path = self.folder / "output"
        self.log_path = self.folder / "errors"
        _living.append(self)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def command(self):
        words = [self.program, "server", *self.flags]
        for name, value in self.settings.items():
            words += ["--set", f"{name}={value}"]
        return words

    def start(self, wait=True):
        assert self.process is None, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.starts += 1
        with open(self.output_path, "ab") as output, open(self.log_path, "ab") as errors:
            self.started_at = time.monotonic()
            self.process = subprocess.Popen(self.command(), stdout=output, stderr=errors, stdin=subprocess.DEVNULL, cwd=self.folder,
                                            env={**os.environ, **self.environment})
        if wait:
            self.wait_for_answer()
        return self

    def wait_for_answer(self, seconds=20):
        """Waits for the first answer to ApiVersions, and says after how many seconds it came."""
        end = time.monotonic() + seconds
        request = bytes.fromhex("0000000e00120000000000010004") + b"test"
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"the broker ended with {self.process.returncode} when it should start:\n{self.log()[-2000:]}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
                    s.sendall(request)
                    if len(s.recv(4)) == 4:
                        return time.monotonic() - self.started_at
            except OSError:
                pass
            if time.monotonic() > end:
                raise AssertionError(f"no answer {seconds} seconds after the start:\n{self.log()[-2000:]}")
            time.sleep(0.002)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self, by=signal.SIGTERM, seconds=10):
        """Stops it cleanly; returns (exit code, seconds taken)."""
        started = time.monotonic()
        self.process.send_signal(by)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still there {seconds} seconds after signal {by}:\n{self.log()[-2000:]}")
        self.process = None
        return code, time.monotonic() - started

    def restart(self):
        self.stop()
        return self.start()

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def has_ended(self):
        """Also of one that is still writing down how it crashed."""
        if "Fatal error" in self.log() or "Program crashed" in self.log():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        return not self.is_running()

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def output(self):
        return self.output_path.read_text(errors="replace") if self.output_path.exists() else ""

    def memory(self, kind="RssAnon"):
        """Resident bytes of a kind: RssAnon, VmRSS."""
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith(kind + ":"):
                    return int(line.split()[1]) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def processor_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.process = None
        if self.own_folder and not KEEP:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif KEEP:
            print(f"note kept {self.folder}")

    def __enter__(self):
        return self.start() if self.process is None else self

    def __exit__(self, *_):
        pass  # end_all() does it, after the log was shown


def run_program(*words, seconds=20, cwd=None):
    """Runs the program to its end."""
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=seconds, cwd=cwd, stdin=subprocess.DEVNULL)


def shared(*parts):
    """A file of the material that may lie beside the project, or the test is skipped."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        raise Skip(f"{os.path.relpath(path, ROOT)} is not here")
    return path


def unpack(archive, folder):
    """A log directory that Kafka wrote."""
    with tarfile.open(shared("kafka-data", f"{archive}.tar.xz")) as packed:
        packed.extractall(folder)


def told_by(log):
    """What of a log says most: how the process crashed, if it did, and its last lines."""
    lines = log.splitlines()
    for i, line in enumerate(lines):
        if re.search(r"Fatal error|Assertion failed|Precondition failed", line):
            frames = [l for l in lines[i:] if re.match(r"\s*\d+ .* in ", l)]
            return lines[max(i - 5, 0) : i + 1] + frames[:14]
    return lines[-15:]


def logs_of_brokers():
    return "\n".join(f"     broker on {b.port} said:\n" + "\n".join("     | " + l[:300] for l in told_by(b.log())) for b in _living)


def end_all():
    while _living:
        with contextlib.suppress(Exception):
            _living.pop().end()
