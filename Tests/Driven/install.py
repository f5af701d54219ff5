"""Installing: by hand, as a package on a fresh Debian, and as a container whose environment was written for Kafka."""
import atexit, contextlib, functools, json, os, pathlib, re, resource, shutil, socket, subprocess, tempfile
import driving
from driving import ROOT, Broker, Skip, free_port, run_program, test, wait_until
from settings import metadata, put
from wire import Closed, Connection

DEBIAN = "bookworm"
# A fresh Debian, made once: what is in it is thrown away with each test.
FRESH = ROOT / ".build" / f"debian-{DEBIAN}.tar"
QUIETLY = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


@contextlib.contextmanager
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="martlet-install-"))
    try:
        yield path
    finally:
        if driving.KEEP:
            print(f"note kept {path}")
        else:
            shutil.rmtree(path, ignore_errors=True)


def run(*words, **more):
    """Runs a command to its end, which must be a good one; what it printed."""
    done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, timeout=600, **more)
    assert done.returncode == 0, f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout[-3000:]}"
    return done.stdout


def script(name, *words, **variables):
    return run(ROOT / "scripts" / name, *words, env={**os.environ, **{k: str(v) for k, v in variables.items()}})


def files_in(root):
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}


@test
def what_make_install_puts_somewhere_make_uninstall_takes_away():
    with folder() as root:
        where = {"PREFIX": "/opt/martlet", "DESTDIR": root}
        script("install", "install", driving.PROGRAM, **where)
        settings = root / "etc/martlet/server.properties"
        assert files_in(root) == {
            "opt/martlet/bin/martlet", "opt/martlet/lib/systemd/system/martlet.service",
            "opt/martlet/lib/sysusers.d/martlet.conf", "opt/martlet/share/man/man1/martlet.1",
            "opt/martlet/share/doc/martlet/copyright", "opt/martlet/share/doc/martlet/server.properties",
            "etc/martlet/server.properties",
        }, files_in(root)
        unit = (root / "opt/martlet/lib/systemd/system/martlet.service").read_text()
        assert "\nExecStart=/opt/martlet/bin/martlet server --config /etc/martlet/server.properties\n" in unit
        assert "@" not in unit.replace("@system-service", "").replace("@privileged", ""), unit
        assert "Runs a broker" in run(root / "opt/martlet/bin/martlet", "server", "--help")

        # a second installation leaves edited settings alone, and so does taking it all away
        settings.write_text("num.partitions=7\n")
        script("install", "install", driving.PROGRAM, **where)
        assert settings.read_text() == "num.partitions=7\n"
        told = script("install", "uninstall", **where)
        assert files_in(root) == {"etc/martlet/server.properties"} and "which was edited" in told, (files_in(root), told)
        settings.unlink()
        script("install", "install", driving.PROGRAM, **where)
        script("install", "uninstall", **where)
        assert files_in(root) == set(), files_in(root)
        assert not (root / "etc/martlet").exists()
        script("install", "uninstall", **where)


@test
def what_is_not_built_is_not_installed():
    with folder() as root:
        done = subprocess.run([ROOT / "scripts/install", "install", root / "martlet"], capture_output=True, text=True,
                              env={**os.environ, "DESTDIR": str(root)}, timeout=20)
        assert done.returncode == 1 and "run 'make build' first" in done.stderr, done
        assert files_in(root) == set()


@test
def systemd_finds_no_fault_with_the_unit_and_calls_it_safe():
    if not shutil.which("systemd-analyze"):
        raise Skip("there is no systemd-analyze")
    with folder() as root:
        script("install", "install", driving.PROGRAM, PREFIX="/usr", DESTDIR=root)
        unit = root / "usr/lib/systemd/system/martlet.service"
        # the program that it names is not installed on this machine
        checked = root / "martlet.service"
        checked.write_text(unit.read_text().replace("/usr/bin/martlet", driving.PROGRAM))
        told = run("systemd-analyze", "verify", "--man=no", checked)
        assert "martlet" not in told, told
        checked.write_text(checked.read_text().replace("LimitNOFILE", "LimitNOFILES"))
        assert "LimitNOFILES" in run("systemd-analyze", "verify", "--man=no", checked), "it would find no fault with anything"
        told = run("systemd-analyze", "security", "--offline=yes", unit)
        exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", told)[1])
        assert exposure <= 2.0, told
        assert "LimitNOFILE=524288" in unit.read_text() and "KillSignal=SIGTERM" in unit.read_text()


@test
def the_manual_has_every_flag_of_the_server():
    manual = (ROOT / "packaging/martlet.1").read_text().replace("\\-", "-")
    flags = re.findall(r"^  --([a-z-]+)", run_program("server", "--help").stdout, re.M)
    assert len(flags) > 3, flags
    missing = [flag for flag in flags if f"--{flag}" not in manual]
    assert not missing, f"packaging/martlet.1 lacks {missing}"


@test
def the_settings_that_are_installed_start_a_broker_without_a_warning():
    with folder() as root:
        text = (ROOT / "packaging/server.properties").read_text()
        places = re.findall(r"^[a-z.]+=(/var/lib/martlet/\w+)$", text, re.M)
        assert len(places) == 3, "records, state, and what was cut"
        # those that are only proposed are right as well
        text = re.sub(r"^#([a-z.]+=)", r"\1", text, flags=re.M).replace("/var/lib/martlet", str(root))
        port = free_port()
        text = text.replace("127.0.0.1:9092", f"127.0.0.1:{port}")
        (root / "server.properties").write_text(text)
        broker = Broker(folder=root, port=port, flags=["--config", root / "server.properties"])
        broker.settings = {}
        broker.start()
        assert "warning" not in broker.log().lower(), broker.log()
        assert broker.stop()[0] == 0


# Containers

def entrypoint():
    """What the image starts, without the place of the program; and its other words for that."""
    text = (ROOT / "Containerfile").read_text()
    words = json.loads(re.search(r"^ENTRYPOINT (\[.*\])$", text, re.M)[1])
    assert words[:2] == ["/usr/bin/martlet", "server"], words
    assert re.search(r"^STOPSIGNAL SIGTERM$", text, re.M) and re.search(r"^USER martlet$", text, re.M)
    assert re.search(r"^VOLUME /var/lib/martlet$", text, re.M) and re.search(r"^WORKDIR /var/lib/martlet$", text, re.M)
    return words[2:]


class Container(Broker):
    """A broker that is started as the image starts it: with an environment, in the folder of its data."""

    def __init__(self, environment, flags=(), port=None, **more):
        super().__init__(flags=[*entrypoint(), *flags], port=port, **more)
        self.settings = {}
        self.environment = environment

    def start(self, wait=True):
        kept = dict(os.environ)
        os.environ.update(self.environment)
        try:
            return super().start(wait)
        finally:
            os.environ.clear()
            os.environ.update(kept)


def refusal(environment, *flags):
    with folder() as data:
        done = subprocess.run([driving.PROGRAM, "server", *entrypoint(), *flags], capture_output=True, text=True, timeout=20, cwd=data,
                              stdin=subprocess.DEVNULL, env={**os.environ, **environment})
        assert done.returncode == 1, done
        assert files_in(data) == set(), "it began before it knew its settings"
        return done.stderr


@test
def a_container_described_for_kraft_starts_as_described():
    clients, hosts, controllers = free_port(), free_port(), free_port()
    with folder() as data:
        broker = Container({
            "KAFKA_NODE_ID": "5",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": f"PLAINTEXT://127.0.0.1:{clients},PLAINTEXT_HOST://127.0.0.1:{hosts},CONTROLLER://127.0.0.1:{controllers}",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://broker:{clients},PLAINTEXT_HOST://localhost:{hosts}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": f"5@localhost:{controllers}",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_NUM_PARTITIONS": "3",
            "KAFKA_LOG_DIRS": f"{data}/records",
            "KAFKA_HEAP_OPTS": "-Xmx1g -Xms1g", "KAFKA_JMX_PORT": "9101",
            "CLUSTER_ID": "MkU3OEVBNTcwNTJENDM2Qk",
            "MARTLET_KEEPER_DIR": f"{data}/state",
        }, port=clients).start()
        # each listener's clients are told of that listener
        assert metadata(Connection(clients))[0] == [(5, "broker", clients, None)]
        assert metadata(Connection(hosts))[0] == [(5, "localhost", hosts, None)]
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", controllers)) != 0, "the controller's listener is open"
        wait_until(lambda: len(metadata(Connection(clients), "made")[1]["made"][1]) == 3, what="a topic of three partitions")
        assert (data / "records/made-0").is_dir() and (data / "state").is_dir()
        for sentence in ("KAFKA_HEAP_OPTS has no effect", "KAFKA_JMX_PORT has no effect", "CLUSTER_ID has no effect",
                         "controller.quorum.voters has no effect", "the listener CONTROLLER is not opened"):
            assert broker.log().count(sentence) == 1, (sentence, broker.log())
        code, seconds = broker.stop()
        assert code == 0 and seconds < 10


@test
def a_container_keeps_its_data_in_the_folder_it_starts_in():
    with folder() as data:
        port = free_port()
        told = {"KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}", "KAFKA_BROKER_ID": "2"}
        broker = Container(told, folder=data, port=port).start()
        connection = Connection(port)
        assert connection.create_topic("kept") == 0
        assert put(connection, "kept")[:2] == (0, 0)
        # an address that is only told is listened on as every interface
        assert "0.0.0.0" in broker.output() or "[::]" in broker.output() or "*" in broker.output(), broker.output()
        broker.stop()
        broker.start()
        assert put(Connection(port), "kept")[:2] == (0, 1)
        assert (data / "data/log/kept-0").is_dir() and (data / "data/keeper").is_dir()
        broker.stop()


@test
def in_a_container_too_the_command_line_counts_before_the_environment_and_that_before_the_file():
    with folder() as data:
        port = free_port()
        (data / "file").write_text("num.partitions=2\nbroker.rack=file\nbroker.id=9\n")
        broker = Container(
            {"KAFKA_NUM_PARTITIONS": "4", "KAFKA_BROKER_RACK": "environment", "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}"},
            flags=["--config", "file", "--set", "num.partitions=5"], folder=data, port=port).start()
        wait_until(lambda: len(metadata(Connection(port), "made")[1]["made"][1]) == 5, what="a topic of five partitions")
        assert metadata(Connection(port))[0] == [(9, "localhost", port, "environment")]
        broker.stop()


@test
def a_misspelt_variable_stops_a_container_and_names_the_right_one():
    told = refusal({"KAFKA_NUM_PARTITONS": "3"})
    assert "KAFKA_NUM_PARTITONS: there is no broker setting 'num.partitons'; the nearest is 'num.partitions'" in told, told
    told = refusal({"KAFKA_NUM_PARTITIONS": "many"})
    assert "KAFKA_NUM_PARTITIONS: num.partitions cannot be 'many'" in told, told
    told = refusal({"KAFKA_ZOOKEEPER_CONNECT": "zookeeper:2181"})
    assert "--coordination embedded" in told, told


@test
def without_being_told_to_a_broker_does_not_look_at_its_environment():
    kept = dict(os.environ)
    os.environ.update({"KAFKA_NUM_PARTITONS": "misspelt", "KAFKA_BROKER_ID": "8", "KAFKA_HOME": "/opt/kafka"})
    try:
        broker = Broker().start()
    finally:
        os.environ.clear()
        os.environ.update(kept)
    assert metadata(Connection(broker.port))[0][0][0] == 1
    assert "KAFKA" not in broker.log(), broker.log()
    broker.stop()


# The package

class Machine:
    """A fresh Debian below a folder, in which programs run as on a machine of its own, on this machine's network."""

    def __init__(self, root):
        self.root = root
        if os.geteuid() != 0:
            raise Skip("only root can make a Debian and run programs in it")
        if not shutil.which("mmdebstrap"):
            raise Skip("mmdebstrap is not installed")
        if not FRESH.exists():
            self.fetch()
        root.mkdir()
        run("tar", "--extract", "--file", FRESH, "--directory", root, "--exclude=./dev/*")
        for name in ("etc/resolv.conf", "etc/hosts"):
            if pathlib.Path("/", name).exists():
                shutil.copy(f"/{name}", root / name)
        try:
            run("unshare", "--mount", "true")
        except AssertionError as error:
            raise Skip(f"no mounts of its own can be made here: {error}")

    @staticmethod
    def fetch():
        made = FRESH.with_suffix(f".{os.getpid()}.tar")
        try:
            run("mmdebstrap", "--mode=root", "--variant=minbase", "--dpkgopt=force-unsafe-io", DEBIAN, made)
            made.rename(FRESH)
        except AssertionError as error:
            made.unlink(missing_ok=True)
            raise Skip(f"no fresh Debian can be had: {str(error)[-300:]}")

    def command(self, *words, user="root"):
        """The words that run others in there. The process that is started becomes them, so that it can be told to stop."""
        words = ["chroot", f"--userspec={user}", str(self.root), *map(str, words)]
        inside = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", inside, str(self.root), *words]

    def run(self, *words):
        return run(*self.command(*words), env=QUIETLY)

    def apt(self, *words):
        return self.run("apt-get", "--yes", "--quiet", "--no-install-recommends", "--option=DPkg::Options::=--force-unsafe-io", *words)

    def state(self, package):
        """As dpkg has it: `ii` is installed, `rc` removed with its settings left, nothing unknown."""
        return self.run("sh", "-c", f"dpkg-query --show --showformat='${{db:Status-Abbrev}}' {package} 2>/dev/null || true").strip()

    def user(self, name):
        found = [l.split(":") for l in (self.root / "etc/passwd").read_text().splitlines() if l.startswith(name + ":")]
        return (int(found[0][2]), int(found[0][3])) if found else None


def runtime_of(program):
    """The folder with Swift's own libraries, where the tested program needs them; None where they are in it."""
    found = re.search(r"libswiftCore\.so => (\S+)/libswiftCore\.so", run("ldd", program))
    return pathlib.Path(found[1]) if found else None


# Nobody downloads these packages: how well they are packed is of no interest.
LOOSELY = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}


def package_of(program, into):
    runtime = runtime_of(program)
    told = script("package", program, into, *(["--runtime", runtime] if runtime else []), **LOOSELY)
    return pathlib.Path(told.split()[-1])


@functools.cache
def the_package():
    """The tested program's, which takes long enough to make to be made once."""
    made = tempfile.TemporaryDirectory(prefix="martlet-package-")
    atexit.register(made.cleanup)
    return package_of(driving.PROGRAM, pathlib.Path(made.name))


def with_version(package, version, into):
    """The same package, as of a later version."""
    run("dpkg-deb", "--raw-extract", package, into / "raw")
    control = into / "raw/DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {version}", control.read_text(), flags=re.M))
    run("dpkg-deb", "--root-owner-group", "--build", into / "raw", into / "later.deb", env={**os.environ, **LOOSELY})
    return into / "later.deb"


def fresh_machine_with_the_package(place, *more):
    """A fresh Debian with the tested program's package installed, and other packages of Debian."""
    machine = Machine(place / "root")
    try:
        machine.apt("update")
    except AssertionError as error:
        raise Skip(f"Debian's packages cannot be reached: {str(error)[-300:]}")
    if runtime := runtime_of(driving.PROGRAM):
        inside = machine.root / str(runtime).lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        for library in runtime.glob("*.so*"):
            shutil.copy(library, inside / library.name)
    shutil.copy(the_package(), machine.root / "martlet.deb")
    shutil.copy(with_version(the_package(), later_version(), place), machine.root / "later.deb")
    machine.apt("install", "/martlet.deb", *more)
    return machine


def later_version():
    return script("version").strip() + "+1"


class Served(Broker):
    """The broker of a package, started as its unit would start it."""

    def __init__(self, machine, port):
        super().__init__(port=port)
        self.machine = machine

    def command(self):
        return self.machine.command("/usr/bin/martlet", "server", "--config", "/etc/martlet/server.properties", user="martlet:martlet")


@test
def the_package_says_what_it_needs_and_is_the_same_each_time():
    with folder() as place:
        first, second = the_package(), package_of(driving.PROGRAM, place)
        assert first.name == second.name and first.read_bytes() == second.read_bytes()
        field = lambda name: run("dpkg-deb", "--field", first, name).strip()
        needed = {d.split(" ")[0] for d in field("Depends").split(", ")}
        assert {"adduser", "libuv1", "libisal2", "libzstd1", "liblz4-1", "libsnappy1v5", "zlib1g", "libc6"} <= needed, needed
        assert field("Version") == script("version").strip()
        assert run("dpkg-deb", "--info", first, "conffiles").split() == ["/etc/martlet/server.properties"]
        for line in run("dpkg-deb", "--contents", first).splitlines():
            assert line.split()[1] == "root/root", line
        version = field("Version")
        base = (ROOT / "VERSION").read_text().strip()
        assert version == base or subprocess.run(["dpkg", "--compare-versions", version, "lt", base]).returncode == 0


@test
def the_package_lives_a_whole_life_on_a_fresh_debian():
    with folder() as place:
        machine = fresh_machine_with_the_package(place)
        root = machine.root
        settings, data = root / "etc/martlet/server.properties", root / "var/lib/martlet"
        enabled = root / "etc/systemd/system/multi-user.target.wants/martlet.service"

        # installed with what it needs, for a user of its own
        assert machine.state("martlet") == "ii"
        uid, gid = machine.user("martlet")
        assert uid < 1000 and (data.stat().st_uid, data.stat().st_gid, data.stat().st_mode & 0o777) == (uid, gid, 0o750)
        assert "not found" not in machine.run("ldd", "/usr/bin/martlet")
        assert enabled.is_symlink(), "the service is not enabled"

        # it runs as that user, with settings that somebody edited
        port = free_port()
        edited = settings.read_text().replace("127.0.0.1:9092", f"127.0.0.1:{port}") + "\nnum.partitions=3\n"
        settings.write_text(edited)
        broker = Served(machine, port).start()
        assert os.stat(f"/proc/{broker.process.pid}").st_uid == uid
        connection = Connection(port)
        assert connection.create_topic("kept") == 0
        assert put(connection, "kept")[:2] == (0, 0)
        assert broker.stop()[0] == 0

        # configured again, installed again, upgraded: the settings stay edited, and what was acknowledged is there
        for _ in range(2):
            machine.run("/var/lib/dpkg/info/martlet.postinst", "configure", "")
        machine.apt("install", "--reinstall", "/martlet.deb")
        machine.apt("install", "/later.deb")
        assert later_version() in machine.run("dpkg-query", "--show", "martlet")
        assert settings.read_text() == edited
        assert machine.user("martlet") == (uid, gid)
        broker.start()
        assert put(Connection(port), "kept")[:2] == (0, 1)
        assert broker.stop()[0] == 0

        # removed: the program is gone, settings and data are not, and it can come back to them
        machine.apt("remove", "martlet")
        assert machine.state("martlet") == "rc"
        assert not (root / "usr/bin/martlet").exists() and not (root / "usr/lib/systemd/system/martlet.service").exists()
        assert settings.read_text() == edited and (data / "log/kept-0").is_dir()
        machine.apt("install", "/later.deb")
        assert enabled.is_symlink() and not (root / "etc/systemd/system/martlet.service").exists(), "it stayed masked"
        broker.start()
        assert put(Connection(port), "kept")[:2] == (0, 2)
        assert broker.stop()[0] == 0

        # purged: only its user is left, so that nobody else gets its number
        machine.apt("purge", "martlet")
        assert machine.state("martlet") in ("", "un"), machine.state("martlet")
        for path in (data, root / "etc/martlet", enabled, root / "usr/share/doc/martlet"):
            assert not os.path.lexists(path), f"{path} is still there"
        assert machine.user("martlet") == (uid, gid)


class Booted:
    """A machine whose systemd runs, in namespaces of its own but for the network."""

    def __init__(self, machine):
        self.log = machine.root.parent / "console"
        with open(self.log, "wb") as console:
            self.process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--kill-signal=SIGRTMIN+4",
                 f"--directory={machine.root}"], stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)

    def told(self):
        return self.log.read_text(errors="replace")[-2000:]

    def first(self):
        """The machine's first process, as this machine numbers it."""
        if self.process.poll() is not None:
            raise Skip(f"systemd cannot be started here: {self.told()}")
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next((c for c in children if pathlib.Path(f"/proc/{c}/comm").read_text() == "systemd\n"), None)

    def run(self, *words):
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup"]
        return run("nsenter", f"--target={self.first()}", *spaces, *words, env=QUIETLY)

    def service(self, *properties):
        shown = self.run("systemctl", "show", "martlet", *(f"--property={p}" for p in properties))
        return dict(line.split("=", 1) for line in shown.splitlines())

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def answer_of(booted, port, topic):
    """What a produced record is answered, as soon as the broker can be reached."""
    def probe():
        assert booted.process.poll() is None, booted.told()
        try:
            connection = Connection(port)
            connection.create_topic(topic)
            return put(connection, topic)[:2]
        except (OSError, Closed):
            return None
    return wait_until(probe, seconds=40, every=0.2, what="an answer of the service")


@test
def under_systemd_the_service_starts_by_itself_comes_back_after_a_crash_and_stops_cleanly():
    if not shutil.which("systemd-nspawn"):
        raise Skip("systemd-nspawn is not installed")
    with folder() as place:
        machine = fresh_machine_with_the_package(place, "systemd", "systemd-sysv", "dbus")
        port = free_port()
        settings = machine.root / "etc/martlet/server.properties"
        settings.write_text(settings.read_text().replace("127.0.0.1:9092", f"127.0.0.1:{port}"))
        booted = Booted(machine)
        try:
            wait_until(booted.first, seconds=20, what="the start of systemd")
            try:
                assert answer_of(booted, port, "kept") == (0, 0)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{booted.run('journalctl', '--unit=martlet', '--no-pager')[-2000:]}")
            said = booted.service("MainPID", "User", "ActiveState", "NRestarts")
            assert (said["User"], said["ActiveState"], said["NRestarts"]) == ("martlet", "active", "0"), said
            limits = booted.run("cat", f"/proc/{said['MainPID']}/limits")
            # a machine inside of another cannot have more than that one may
            most = min(524288, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            assert re.search(rf"Max open files +{most} +{most} ", limits), limits
            status = booted.run("cat", f"/proc/{said['MainPID']}/status")
            assert re.search(r"NoNewPrivs:\s1\n", status) and re.search(r"Seccomp:\s2\n", status), status

            booted.run("systemctl", "kill", "--signal=KILL", "martlet")
            assert answer_of(booted, port, "kept") == (0, 1)
            assert booted.service("NRestarts")["NRestarts"] == "1"

            before = booted.service("MainPID")
            booted.run("apt-get", "--yes", "--quiet", "install", "/later.deb")
            assert answer_of(booted, port, "kept") == (0, 2)
            assert booted.service("MainPID") != before, "the old program still runs after an upgrade"

            booted.run("systemctl", "stop", "martlet")
            said = booted.service("ActiveState", "Result", "ExecMainStatus")
            assert said == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}, said
            booted.run("apt-get", "--yes", "--quiet", "purge", "martlet")
            assert not (machine.root / "var/lib/martlet").exists()
        finally:
            booted.end()


class ShownMachine:
    """A machine of which scripts/prepare sees what it is shown: which packages are there, what apt-get does, which Swift there is."""

    NEEDED = ("bash", "cat", "env", "grep", "head", "mkdir", "mktemp", "rm", "sed", "sort", "tail", "touch")

    def __init__(self, root):
        self.root, self.programs = root, root / "bin"
        self.programs.mkdir()
        for name in self.NEEDED:
            (self.programs / name).symlink_to(shutil.which(name))
        shutil.copy(ROOT / "scripts/prepare", root / "prepare")
        for path in (root, self.programs):
            path.chmod(0o755)
        self.has("dpkg-query", "echo installed")
        self.has("apt-get", f"echo $* >> {root}/asked")

    def has(self, name, text):
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (self.programs / name).chmod(0o755)

    def prepare(self, kind, *before):
        """(exit code, what it said)."""
        done = subprocess.run([*before, shutil.which("bash"), self.root / "prepare", kind], capture_output=True, text=True, timeout=60, cwd=self.root,
                              env={"PATH": str(self.programs), "TMPDIR": str(self.root)})
        return done.returncode, done.stdout + done.stderr


@test
def what_is_missing_to_build_is_installed_or_a_sentence():
    with folder() as root:
        machine = ShownMachine(root)
        code, said = machine.prepare("build")
        assert code == 1 and said.count("\n") == 1 and "Swift is not installed" in said and "https://www.swift.org" in said, said
        machine.has("swift", 'echo "Swift version 5.10.1 (swift-5.10.1-RELEASE)"')
        code, said = machine.prepare("build")
        assert code == 1 and said.count("\n") == 1 and "this is 5.10" in said, said
        machine.has("swift", "exit 1")
        assert "of an unknown version" in machine.prepare("test")[1]
        machine.has("swift", 'echo "Swift version 6.3.1 (swift-6.3.1-RELEASE)"')
        for kind in ("build", "tools", "test", "bench", "package"):
            assert machine.prepare(kind) == (0, ""), kind
        assert not (root / "asked").exists(), "nothing was missing"

        machine.has("dpkg-query", '[[ ${@: -1} == libuv1-dev ]] && echo not-installed || echo installed')
        if os.geteuid() == 0:
            code, said = machine.prepare("build")
            assert code == 0 and said == "Installing libuv1-dev\n", said
            assert "install --yes --no-install-recommends libuv1-dev" in (root / "asked").read_text()
            machine.has("apt-get", "echo E: no such thing >&2; exit 100")
            code, said = machine.prepare("build")
            assert code == 1 and "apt-get could not install libuv1-dev" in said, said
            someone = [shutil.which("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
        else:
            someone = []
        code, said = machine.prepare("build", *someone)
        assert code == 1 and said.count("\n") == 1 and "run 'apt-get install libuv1-dev' as root" in said, said
