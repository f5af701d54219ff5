"""Seeds of the swarm (scripts/simulate), and the judge of histories that real processes write (martlet-check)."""
import json, pathlib, re, stat, subprocess, sys, tempfile
import driving
from driving import ROOT, Skip, test

SEEDS = 300
# Every fault and every API occurs in so many of them.
LEAST = 20
# Every so manyth is run again in another process, and must tell the same.
TWICE = 1


def program(name):
    path = pathlib.Path(driving.PROGRAM).parent / name
    if not path.exists():
        raise Skip(f"{name} is not built beside the program")
    return str(path)


def simulate(*arguments, path=None, seconds=300):
    return subprocess.run(
        [sys.executable, ROOT / "scripts/simulate", "--program", path or program("martlet-simulate"), *map(str, arguments)],
        capture_output=True, text=True, timeout=seconds)


@test
def the_swarm_finds_nothing():
    got = simulate("--from", 1, "--seeds", SEEDS, "--least", LEAST, "--twice", TWICE, seconds=1400)
    for line in got.stdout.splitlines():
        print(f"note {line}")
    assert got.returncode == 0, got.stdout[-6000:] + got.stderr[-2000:]


@test
def what_a_seed_finds_is_told_with_its_history_and_how_to_see_it_again():
    got = simulate("--from", 1, "--seeds", 20, "--planted", "skippedSync")
    assert got.returncode == 1, (got.returncode, got.stdout, got.stderr)
    seed = re.search(r"^to see it again, with its history: make simulate SEED=(\d+)$", got.stdout, re.MULTILINE)
    assert seed and f"seed {seed[1]} found:" in got.stdout, got.stdout
    history = ROOT / ".build" / "simulate" / f"seed-{seed[1]}.history"
    assert str(history) in got.stdout, got.stdout
    events = [json.loads(line)["event"] for line in history.read_text().splitlines()]
    assert {"send", "accepted", "saw", "note"} <= set(events), set(events)
    assert pathlib.Path(f"{history}.world").stat().st_size > 0
    again = simulate("--seed", seed[1], "--planted", "skippedSync")
    assert again.returncode == 1 and "told the same in two processes" in again.stdout, again.stdout


@test
def a_bug_that_nobody_knows_cannot_be_planted():
    for arguments in [["1", "1", "planted=skippedSink"], ["1", "1", "plant=skippedSync"], ["1", "2", "history=/dev/null"]]:
        got = subprocess.run([program("martlet-simulate"), *arguments], capture_output=True, text=True, timeout=60)
        assert got.returncode == 2 and got.stderr, (arguments, got.returncode, got.stderr)


# What a sound seed reports.
SOUND = {"history": "1", "told": "2", "seconds": 121, "events": 900, "answers": 400, "acknowledged": 100, "seen": 100, "lives": 3,
         "damage": 1, "gaps": 1, "committed": 1, "aborted": 1, "resent": 1, "resentWritten": 1, "verdicts": [],
         "apis": {"Produce": 3}, "faults": {"kill": 2}, "advertised": ["Produce"], "everyFault": ["kill"]}


def told(report, *arguments, before="", after=""):
    """What is said of seeds whose reports are this one."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "program"
        path.write_text(
            f"#!{sys.executable}\nimport os, sys, time\nfor seed in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):\n"
            f"    report = {report!r} | {{'seed': seed}}\n    {before or 'pass'}\n"
            f"    print(__import__('json').dumps(report), flush=True)\n    {after or 'pass'}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        got = simulate("--from", 1, "--seeds", 12, *arguments, path=str(path), seconds=60)
        return got.returncode, got.stdout


@test
def a_run_in_which_something_never_happens_proves_nothing():
    code, said = told(SOUND, "--least", 5, "--twice", 2)
    assert code == 0 and "12 seeds" in said and "6 of them in two processes" in said, (code, said)
    for change, sentence in [
            ({"everyFault": ["kill", "powerCut"]}, "fault powerCut occurred in 0 seeds, and 5 are wanted"),
            ({"advertised": ["Fetch", "Produce"]}, "API Fetch occurred in 0 seeds, and 5 are wanted"),
            ({"committed": 0}, "transactions committed: none"), ({"damage": 0}, "partitions that refused what was damaged: none"),
            ({"answers": 199}, "it tried nothing: 199 answers"), ({"seconds": 119}, "it was over after 119 virtual seconds"),
            ({"verdicts": ["lostWrite: a"]}, "lostWrite: a")]:
        code, said = told(SOUND | change, "--least", 5)
        assert code == 1 and sentence in said, (change, code, said)


@test
def a_seed_that_hangs_dies_or_tells_another_story_is_named():
    for arguments, sentence in [
            ({"before": "time.sleep(600 if seed == 3 else 0)"}, "it came to no end within 2 s"),
            ({"before": "if seed == 3: print('Fatal error: a trap', file=sys.stderr, flush=True); os.abort()"}, "Fatal error: a trap"),
            ({"before": "report['history'] = str(os.getpid()) if seed == 3 else '1'"}, "it told another story in another process")]:
        code, said = told(SOUND, "--processes", 1, "--seconds", 2, "--twice", 1, **arguments)
        assert code == 1 and "seed 3 found:" in said and sentence in said and "make simulate SEED=3" in said, (arguments, code, said)


@test
def a_history_of_lines_is_judged():
    sound = '{"at":1,"event":"send","operation":1,"producer":"p","topic":"t","partition":0,"values":["a"],"acks":-1}\n' \
            '{"at":2,"event":"accepted","operation":1,"offset":0}\n' \
            '{"at":4,"event":"saw","consumer":"last","topic":"t","partition":0,"asked":3,"from":0,"records":[[0,"a"]],"highWatermark":1}\n' \
            '{"at":5,"event":"whole","consumer":"last","topic":"t","partition":0,"start":0,"end":1}\n'
    for text, code, said in [(sound, 0, "nothing is wrong"), (sound.replace('[[0,"a"]]', "[]"), 1, "lostWrite: a was acknowledged"),
                             (sound + "{}\n", 2, '-, line 5: "at" is to be a whole number')]:
        got = subprocess.run([program("martlet-check"), "-"], input=text, capture_output=True, text=True, timeout=60)
        assert got.returncode == code and said in got.stdout + got.stderr, (got.returncode, got.stdout, got.stderr)
