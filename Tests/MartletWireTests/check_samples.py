"""Compares samples (name, version, hex, JSON) with what an independent codec makes of them.

    check_samples.py CODEC.py SAMPLES
"""
import importlib.util, json, struct, sys


def load(path):
    spec = importlib.util.spec_from_file_location("codec", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def differs(decoded, said, path=""):
    """Where the decoded value is not what the dump says; None if nowhere. Names are compared without case."""
    if isinstance(decoded, dict):
        if not isinstance(said, dict):
            return f"{path}: {decoded!r} is not {said!r}"
        for name, value in decoded.items():
            key = name.lower()
            if key not in said:
                return f"{path}.{name}: not there"
            found = differs(value, said[key], f"{path}.{name}")
            if found:
                return found
        return None
    if isinstance(decoded, list):
        if not isinstance(said, list) or len(said) != len(decoded):
            return f"{path}: {decoded!r} is not {said!r}"
        for index, (a, b) in enumerate(zip(decoded, said)):
            found = differs(a, b, f"{path}[{index}]")
            if found:
                return found
        return None
    if isinstance(decoded, float):
        decoded = struct.pack(">d", decoded).hex()
    if isinstance(decoded, bool) != isinstance(said, bool) or decoded != said:
        return f"{path}: {decoded!r} is not {said!r}"
    return None


def main():
    codec = load(sys.argv[1])
    agreed = 0
    for line in open(sys.argv[2], encoding="utf-8"):
        name, version, raw, said = line.rstrip("\n").split("\t")
        version, raw = int(version), bytes.fromhex(raw)
        try:
            decoded = codec.decode(name, version, raw)
            found = differs(decoded, json.loads(said))
            if not found and codec.encode(name, version, decoded) != raw:
                found = f"encodes it to {codec.encode(name, version, decoded).hex()}, not {raw.hex()}"
        except Exception as error:
            found = f"{type(error).__name__}: {error}; {raw.hex()}"
        if found:
            print(f"{name} v{version}: {found}")
        else:
            agreed += 1
    print(f"{agreed} samples agree")


main()
