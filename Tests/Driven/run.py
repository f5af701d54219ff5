#!/usr/bin/env python3
"""Drives the built program from outside, as its users do.

    Tests/Driven/run.py [SUITE...] [--program .build/release/martlet] [--filter REGEX] [--seed N] [--keep] [--list]

One line a test: `ok`, `FAIL` with what went wrong, or `skip` with the reason; the last line counts them.
"""
import argparse, importlib, os, pathlib, random, re, sys, time, traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
# In the order in which they run: what says most about the program first.
SUITES = [
    "start", "settings", "kcat", "confluent", "kafka_python", "aio", "sarama", "groups", "rebalances", "consumer_protocol",
    "transactions", "exactly_once", "loops", "compaction", "quotas", "cli", "directories", "takeover", "kill9", "torture",
    "hostile", "overload", "full_disk", "metrics", "readme", "conformance", "install", "simulation", "fuzz", "bench",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*")
    parser.add_argument("--program", default=str(HERE.parent.parent / ".build/release/martlet"))
    parser.add_argument("--filter", default="")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("MARTLET_SEED_BASE", "1")),
                        help="of what the tests draw at random (1); 0: another one each time")
    parser.add_argument("--keep", action="store_true", help="leave the data folders and say where they are")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(SUITES))
        return 0
    arguments.seed = arguments.seed or random.randrange(1, 1 << 32)
    import driving
    driving.PROGRAM, driving.SEED, driving.KEEP = os.path.abspath(arguments.program), arguments.seed, arguments.keep
    counts = {"ok": 0, "FAIL": 0, "skip": 0}

    def tell(kind, name, text="", seconds=None):
        counts[kind] += 1
        took = f" ({seconds:.1f} s)" if seconds is not None else ""
        print(f"{kind:4s} {name}{took}{': ' + text if text else ''}", flush=True)

    for suite in arguments.suites or SUITES:
        importlib.import_module(suite)
        for name, function in driving.tests_of(suite):
            if not re.search(arguments.filter, name) and not driving.is_family(function):
                continue
            started = time.monotonic()
            try:
                if driving.is_family(function):
                    for kind, member, text in function(arguments.filter):
                        tell(kind, f"{suite}.{member}", text)
                else:
                    function()
                    tell("ok", name, seconds=time.monotonic() - started)
            except driving.Skip as reason:
                tell("skip", name, str(reason))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                tell("FAIL", name, f"{type(error).__name__}: {error}", time.monotonic() - started)
                print(f"     seed {arguments.seed}")
                print("     " + traceback.format_exc(limit=-4).replace("\n", "\n     "))
                print(driving.logs_of_brokers())
            finally:
                driving.end_all()
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
