"""Sarama, the Go client that Debian packages; the tests are in sarama/main.go."""
import re, subprocess
from driving import ROOT, Broker, Skip, family


@family
def in_go(chosen):
    program = ROOT / ".build/sarama"
    if not program.exists():
        raise Skip(f"{program} is not built: `make test` does it")
    broker = Broker().start()
    got = subprocess.run([program, broker.address], capture_output=True, text=True, timeout=180)
    lines = got.stdout.splitlines()
    for line in lines:
        kind, _, rest = line.partition(" ")
        name, _, text = rest.partition(": ")
        if kind in ("ok", "FAIL") and re.search(chosen, name):
            yield kind, name, text
    if not lines or got.returncode not in (0, 1):
        yield "FAIL", "ran_to_its_end", f"exit code {got.returncode}: {got.stderr[-2000:]}"
