"""Seeds of the swarm (scripts/simulate), and the judge of histories that real processes write (martlet-check)."""
import pathlib, subprocess, sys
import driving
from driving import ROOT, Skip, test

SEEDS = 300
# Every fault and every API occurs in so many of them.
LEAST = 20
# Every so manyth is run twice, and must tell the same.
TWICE = 10


def program(name):
    path = pathlib.Path(driving.PROGRAM).parent / name
    if not path.exists():
        raise Skip(f"{name} is not built beside the program")
    return str(path)


@test
def the_swarm_finds_nothing():
    got = subprocess.run(
        [sys.executable, ROOT / "scripts/simulate", "--program", program("martlet-simulate"), "--from", "1", "--seeds", str(SEEDS),
         "--least", str(LEAST), "--twice", str(TWICE)],
        capture_output=True, text=True, timeout=1400)
    for line in got.stdout.splitlines():
        print(f"note {line}")
    assert got.returncode == 0, got.stdout[-6000:] + got.stderr[-2000:]


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
