"""What the README tells its readers to type, typed as it stands; only the port is another."""
import json, os, pathlib, re, shlex, subprocess, sys, tempfile
import driving
from driving import ROOT, Broker, Skip, free_port, test

PAGE = (ROOT / "README.md").read_text()


def section(title):
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)[1]


def block(language, title):
    return re.search(rf"```{language}\n(.*?)```", section(title), re.S)[1]


def commands(title):
    """The indented lines, those that end in an operator with what follows, without what they say behind a #."""
    lines = [l[4:] for l in section(title).splitlines() if l.startswith("    ")]
    joined = []
    for line in lines:
        if joined and joined[-1].endswith(("|", "\\")):
            joined[-1] = joined[-1].rstrip("\\") + " " + line.strip()
        else:
            joined.append(re.sub(r"\s+# .*$", "", line))
    return joined


class Shell:
    """Where `martlet` is the program that is tested, and 127.0.0.1:9092 the broker."""

    def __init__(self, broker):
        self.broker = broker
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="readme-", dir=broker.folder))
        (self.folder / "martlet").symlink_to(driving.PROGRAM)

    def run(self, line, seconds=30, code=0):
        line = line.replace("127.0.0.1:9092", self.broker.address)
        environment = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "MARTLET_BOOTSTRAP": self.broker.address}
        got = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, timeout=seconds, cwd=self.folder, env=environment,
                             stdin=subprocess.DEVNULL)
        assert got.returncode == code, f"{line}: {got.returncode}\n{got.stdout}{got.stderr}"
        return got.stdout


@test
def the_command_line_does_what_is_said_of_it():
    broker = Broker().start()
    shell, said = Shell(broker), {}
    for line in commands("From the command line"):
        if "group describe billing" in line:
            # somebody has to have read something before there is a group to be described
            assert "hello, world" in shell.run("martlet consume orders --group billing")
        said[line] = shell.run(line)
    assert "orders" in shell.run("martlet topic list")
    assert "3600000" in shell.run("martlet config get topic orders retention.ms")
    told = {word: next(text for line, text in said.items() if word in line) for word in ("consume", "group describe", "cluster describe")}
    assert "hello, world" in told["consume"] and "orders" in told["group describe"], told
    assert json.loads(told["cluster describe"])[0], "the brokers, as jq shows them"


@test
def the_first_producers_and_consumers_work():
    broker = Broker().start()
    shell = Shell(broker)
    written, read = commands("A first producer and consumer")[:2]
    shell.run(written)
    assert "hello, world" in shell.run(read)
    script = shell.folder / "first.py"
    script.write_text(block("python", "A first producer and consumer").replace("127.0.0.1:9092", broker.address))
    out = shell.run(f"{shlex.quote(sys.executable)} {script}")
    assert out.splitlines()[0] == "1" and "1 b'from Python'" in out, out


@test
def the_first_producer_and_consumer_in_go_work():
    source = pathlib.Path("/usr/share/gocode/src/github.com/Shopify/sarama")
    if not source.is_dir():
        raise Skip("Debian's golang-github-shopify-sarama-dev is not installed: `make test` does it")
    broker = Broker().start()
    shell = Shell(broker)
    # Debian has it under the name it had before
    text = block("go", "A first producer and consumer").replace("github.com/IBM/sarama", "github.com/Shopify/sarama")
    (shell.folder / "first.go").write_text(text.replace("127.0.0.1:9092", broker.address))
    out = shell.run(f"GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE={ROOT}/.build/go-cache CGO_CFLAGS=-Wno-deprecated-declarations go run first.go",
                    seconds=180)
    assert out.splitlines() == ["0 <nil>", "0 from Go"], out


@test
def a_server_starts_as_said():
    for line in commands("Start it"):
        if not line.startswith("martlet server"):
            continue
        broker = Broker()
        flags = shlex.split(line)[2:]
        if "--help-config" in flags:
            assert "num.partitions" in Shell(broker).run(line)
            continue
        if "server.properties" in flags:
            flags[flags.index("server.properties")] = str(ROOT / "packaging/server.properties")
        broker.flags = flags
        broker.start()
        assert broker.stop()[0] == 0, line


@test
def a_directory_is_taken_over_and_looked_at_as_said():
    lines = commands("Taking over a Kafka directory")
    broker = Broker().start()
    shell = Shell(broker)
    shell.run("martlet topic create events && echo one | martlet produce events")
    broker.stop()
    kafka = broker.folder / "log"
    (shell.folder / "topics.txt").write_text("events retention.ms=-1\n")
    looked = 0
    for line in lines:
        line = line.replace("/var/lib/kafka", str(kafka))
        if line.startswith("martlet log"):
            looked += 1
            assert shell.run(line), line
    assert looked == 3, lines
    taken = Broker()
    line = next(l for l in lines if l.startswith("martlet server"))
    del taken.settings["log.dirs"]
    taken.flags = [w.replace("/var/lib/kafka", str(kafka)).replace("topics.txt", str(shell.folder / "topics.txt")) for w in shlex.split(line)[2:]]
    taken.start()
    shell.broker = taken
    assert "one" in shell.run("martlet consume events --max 1")
    assert "-1" in shell.run("martlet config get topic events retention.ms")


@test
def how_it_is_can_be_seen_as_said():
    port = free_port()
    broker = Broker({"martlet.metrics.listener": f"127.0.0.1:{port}"}).start()
    for line in commands("See how it is"):
        assert Shell(broker).run(line.replace("127.0.0.1:9644", f"127.0.0.1:{port}")), line
