"""The benchmarks, each for a moment: that they run, not what they measure."""
import pathlib, subprocess, sys
import driving
from driving import ROOT, Skip, test


@test
def every_case_runs():
    build = pathlib.Path(driving.PROGRAM).parent
    if not (build / "martlet-bench").exists():
        raise Skip("martlet-bench is not built beside the program")
    got = subprocess.run([sys.executable, ROOT / "scripts/bench", "--smoke", "--build", build], capture_output=True, text=True, timeout=180)
    assert got.returncode == 0, got.stdout[-3000:] + got.stderr[-2000:]
