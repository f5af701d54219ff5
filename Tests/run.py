#!/usr/bin/env python3
"""Runs every test and counts them: Swift's own, then what drives the built program from outside.

    Tests/run.py [PART...] [--filter REGEX] [--verbose]

Parts: `swift` and the suites of Tests/Driven (`Tests/Driven/run.py --list`); none means all of them.
What passes prints one line a part; what fails prints all that it said. The last line is
`N passed, N failed, N skipped`. A skipped test counts as failed unless Tests/skips.txt names it.

Tests of Swift run beside hundreds of others, and some look at real sockets and clocks: up to three that fail are run
again by themselves. One that passes then is named as unsteady, with what it said; what a seed finds fails again.
"""
import argparse, os, pathlib, re, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build" / "tests"
PROGRAM = BUILD / "release" / "martlet"
PYTHON = ROOT / ".build" / "venv" / "bin" / "python"
LIMIT_SECONDS = 1500
UNSTEADY_LIMIT = 3
# As `make test` builds: a `swift test` without these would take the build for another one.
BUILT_AS = ["--configuration", "release", "--scratch-path", str(BUILD), "-Xswiftc", "-assert-config", "-Xswiftc", "Debug"]


class Count:
    def __init__(self):
        self.passed, self.failed, self.skipped, self.unsteady = 0, [], [], []

    def __str__(self):
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def lines_of(command, log, environment=None):
    """The lines that a command prints, as they come; its exit code last. Everything is kept in `log`."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    started = time.monotonic()
    with open(log, "w") as kept:
        for line in process.stdout:
            kept.write(line)
            yield line.rstrip("\n")
            if time.monotonic() - started > LIMIT_SECONDS:
                process.kill()
                yield f"stopped after {LIMIT_SECONDS} seconds"
    yield process.wait()


def swift(arguments):
    """A process for each test target: what ends one does not silence the others."""
    count = Count()
    if arguments.filter:
        run_of_swift(arguments.filter, "filtered", count, arguments.verbose)
    else:
        for target in sorted(path.name for path in (ROOT / "Tests").glob("*Tests")):
            run_of_swift(rf"^{target}\.", target, count, arguments.verbose)
        run_again_alone(count, arguments.verbose)
    return count


def run_again_alone(count, verbose):
    names = [name for name in count.failed if re.fullmatch(r"\w+\(.*\)", name)]
    if len(names) != len(count.failed) or len(names) > UNSTEADY_LIMIT:
        return
    for name in names:
        alone = Count()
        run_of_swift(rf"\b{re.escape(name.partition('(')[0])}\(", f"{name.partition('(')[0]}-alone", alone, verbose)
        if alone.passed > 0 and not alone.failed:
            count.failed.remove(name)
            count.unsteady.append(name)
            count.passed += 1


def run_of_swift(chosen, name, count, verbose):
    failures, said, ran = [], [], None
    passed_before, failed_before, skipped_before = count.passed, len(count.failed), len(count.skipped)
    command = ["swift", "test", "--skip-build", "--disable-xctest", *BUILT_AS, "--filter", chosen]
    for line in lines_of(command, BUILD / f"swift-{name}.log"):
        if isinstance(line, int):
            code = line
            break
        said.append(line)
        if verbose:
            print(line, flush=True)
        if re.match(r"✔ Test (?!run with|case)(.+?)(?: with \d+ test cases?)? passed after", line):
            count.passed += 1
        elif m := re.match(r"✘ Test (?!run with|case)(.+?)(?: with \d+ test cases?)? failed after", line):
            count.failed.append(m[1])
        elif m := re.match(r"\S+ Test (.+?) skipped", line):
            count.skipped.append(m[1])
        elif re.match(r"✘ .*recorded an issue", line) or (failures and re.match(r"\s*[↳±]", line)):
            failures.append(line)
        if m := re.search(r"Test run with (\d+) tests?.* (?:passed|failed) after", line):
            ran = int(m[1])
    # lines that tests print themselves may run into those that tell of a test: the summary knows how many there were
    told = len(count.failed) - failed_before + len(count.skipped) - skipped_before
    count.passed = max(count.passed, passed_before + (ran or 0) - told)
    print("\n".join(failures[:100]), end="\n" if failures else "")
    if ran is None:
        crash = next((i for i, line in enumerate(said) if "Fatal error" in line), max(len(said) - 40, 0))
        print("\n".join(line[:300] for line in said[crash : crash + 60]))
        count.failed.append(f"{name} did not come to its end")
    elif code != 0 and len(count.failed) == failed_before:
        count.passed = max(count.passed - 1, passed_before)
        count.failed.append(f"{name} ended with {code}")


def driven(suite, arguments):
    count, code = Count(), None
    command = [str(PYTHON), "-u", str(ROOT / "Tests/Driven/run.py"), "--program", str(PROGRAM), suite]
    if arguments.filter:
        command += ["--filter", arguments.filter]
    telling = False
    for line in lines_of(command, BUILD / f"driven-{suite}.log"):
        if isinstance(line, int):
            code = line
            break
        kind, _, rest = line.partition(" ")
        name = re.sub(r" \([\d.]+ s\)$", "", rest.strip().split(": ")[0])
        if kind == "ok":
            count.passed += 1
            telling = False
        elif kind == "FAIL":
            count.failed.append(name)
            telling = True
        elif kind == "skip":
            count.skipped.append(name)
            telling = False
        if telling or arguments.verbose or kind in ("FAIL", "note"):
            print(line, flush=True)
    if code != 0 and not count.failed:
        print((BUILD / f"driven-{suite}.log").read_text()[-3000:])
        count.failed.append(f"{suite} ended with {code}")
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--filter")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    suites = subprocess.run([sys.executable, str(ROOT / "Tests/Driven/run.py"), "--list"], capture_output=True, text=True, check=True).stdout.split()
    unknown = set(arguments.parts) - {"swift", *suites}
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are swift, {', '.join(suites)}")
    allowed = {line.split("#")[0].strip() for line in (ROOT / "Tests/skips.txt").read_text().splitlines()} - {""}

    total = Count()
    for part in ["swift", *suites]:
        if arguments.parts and part not in arguments.parts:
            continue
        started = time.monotonic()
        count = swift(arguments) if part == "swift" else driven(part, arguments)
        for name in count.skipped:
            if name not in allowed:
                count.failed.append(f"{name} was skipped, and Tests/skips.txt does not name it")
        print(f"{part}: {count} ({time.monotonic() - started:.0f} s)", flush=True)
        total.passed += count.passed
        total.failed += [f"{part}: {name}" for name in count.failed]
        total.skipped += [f"{part}: {name}" for name in count.skipped]
        total.unsteady += [f"{part}: {name}" for name in count.unsteady]
    for name in total.skipped:
        print(f"skipped {name}")
    for name in total.unsteady:
        print(f"unsteady {name}: failed beside the others, passed alone")
    for name in total.failed:
        print(f"failed  {name}")
    if total.passed + len(total.failed) == 0:
        total.failed.append("no test was run")
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
