"""What reads bytes from outside, under the fuzzer: from the kept corpora, some seconds each. `make fuzz` is for hours."""
import contextlib, importlib.machinery, importlib.util, io, pathlib, tempfile
from driving import ROOT, SEED, test

SECONDS = 12
JOBS = 2


def fuzzing():
    """scripts/fuzz, as a module."""
    loader = importlib.machinery.SourceFileLoader("fuzzing", str(ROOT / "scripts" / "fuzz"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fuzzing", loader))
    loader.exec_module(module)
    assert module.PROGRAM.exists(), "the fuzzer is not built: `make test` builds it, and so does `make fuzz`"
    return module


def told(function, *arguments, **named):
    """What a function gives, and what it prints; each line is a note."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        result = function(*arguments, **named)
    for line in out.getvalue().splitlines():
        print(f"note {line}", flush=True)
    return result


@test
def each_planted_bug_is_found_from_the_kept_corpus():
    module = fuzzing()
    assert len(module.listing()[1]) == 5, "this build has no bugs planted in it"
    missed = told(module.planted, JOBS, SEED or 1)
    assert missed == 0, f"{missed} bugs that were planted were not found"


@test
def no_input_ends_a_reader():
    module = fuzzing()
    with tempfile.TemporaryDirectory() as working:
        crashes = told(module.fuzz, module.listing()[0], SECONDS, JOBS, SEED or 1, working=pathlib.Path(working))
    assert crashes == 0, f"{crashes} readers were ended: the inputs lie in Fuzz/Crashes, and MartletFuzzTests reads them again"
