"""Recorded conversations with Apache Kafka, held again with this broker: each is a test.

An answer that differs fails, unless Tests/Driven/conformance-exceptions.txt names the conversation and says why.
"""
import collections, pathlib, re, subprocess, sys
from driving import Broker, family, shared, told_by

# Lists of conversations, and which of each are held.
SUBSETS = [("1-path", ""), ("2-broker", ""), ("4-coordination", "|".join(
    [r"consumergroups\.", r"transactions\.", r"offsets\.read_committed", r"commits\.require_stable", r"compaction\.timed_out"]))]
# The broker that was recorded, and no retention: many records carry timestamps of years ago.
SETTINGS = {
    "broker.id": "1", "group.initial.rebalance.delay.ms": "0", "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
    "log.retention.check.interval.ms": "86400000",
}


def exceptions():
    """Name -> reason."""
    lines = (pathlib.Path(__file__).parent / "conformance-exceptions.txt").read_text().splitlines()
    rows = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    assert all(len(row) == 2 for row in rows), "an exception without a reason"
    return dict(rows)


@family
def recorded_conversations(chosen):
    player = shared("conformance", "run.py")
    by_settings = collections.defaultdict(list)
    for subset, held_of_it in SUBSETS:
        file = f"@{shared('conformance', 'subsets', subset + '.txt')}"
        listed = subprocess.run([sys.executable, player, "--list", file], capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            name, _, settings = line.partition("  ")
            if re.search(chosen, name) and re.match(held_of_it, name):
                by_settings[settings.strip()].append(name)
    excepted = exceptions()
    for settings, names in by_settings.items():
        more = dict(pair.split("=", 1) for pair in settings.split())
        for kind, name, text in held(player, names, settings, {**SETTINGS, **more}):
            if kind == "FAIL" and name in excepted:
                yield "ok", name, f"differs as it may: {excepted[name]}"
            elif kind == "ok" and name in excepted:
                yield "FAIL", name, "passes: take it out of conformance-exceptions.txt"
            else:
                yield kind, name, text


def held(player, names, settings, broker_settings):
    """Holds the conversations one after the other; a broker that ends over one is started anew for the rest."""
    left = list(names)
    while left:
        broker = Broker(settings=broker_settings).start()
        command = [sys.executable, "-u", player, "--growing", "--bootstrap", broker.address, *[f"^{re.escape(n)}$" for n in left]]
        if settings:
            command += ["--settings", settings]
        playing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        played = 0
        for kind, name, text in rows(playing, broker):
            played += 1
            left.remove(name)
            yield kind, name, text
            if broker.has_ended():
                break
        playing.kill()
        playing.stdout.close()
        playing.wait()
        if not played:
            for name in left:
                yield "FAIL", name, f"was not played; the broker said: {broker.log()[-500:]}"
            return
        broker.end()


def rows(playing, broker):
    """(kind, name, text) of what the player prints; differences stand on the lines after a FAIL."""
    row = None
    for line in playing.stdout:
        if found := re.match(r"(ok  |FAIL|skip) ([a-z]+\.\w+)(?:: (.*))?$", line.rstrip()):
            if row:
                yield row
            row = (found[1].strip(), found[2], found[3] or "")
            if row[0] == "FAIL" and broker.has_ended():
                row = (*row[:2], "\n     ".join([f"{row[2]}; the broker ended:", *told_by(broker.log())]))
                break
        elif row and row[0] == "FAIL" and not re.match(r"\d+ passed", line):
            row = (row[0], row[1], row[2] + "\n     " + line.rstrip())
    if row:
        yield row
    playing.wait()
