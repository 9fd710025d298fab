#!/usr/bin/env python3
"""Runs spin over docs/spec/*.pml: the models must hold, and each broken variant of them must be refuted.

Usage: spec_test.py [--full] [--only WORD]

Without --full (or CAWFS_TEST_FULL in the environment, as ./dev test --full sets it) only the small configurations run,
for a minute in all. --only: those whose model, configuration or variant contains the word. Prints a line for each, with
the states and seconds that docs/spec/README.md lists. Exit status: 0 all as it must be, 1 not.
"""
import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

SPEC = pathlib.Path(__file__).resolve().parents[2] / "docs" / "spec"
COMPILER = "clang-19"
MEGABYTES = 1024
MEGABYTES_FULL = 4096

# What is searched for. SAFETY: assertions, and states where nothing goes on though somebody waits. LIVELOCK: besides,
# cycles in which each process that could go on does, but nothing comes of it.
SAFETY, LIVELOCK = "safety", "livelock"
PAN = {SAFETY: (["-DSAFETY"], []), LIVELOCK: (["-DNP", "-DNFAIR=4"], ["-l", "-f"])}

# (model, what, definitions)
SMALL = [
    ("locks", SAFETY, "N=2 L=2 OPS=1 CRASHES=1 LOSSES=1"),
    ("locks", SAFETY, "N=3 L=1 OPS=1 CRASHES=0 LOSSES=1"),
    ("locks", SAFETY, "N=3 L=1 OPS=1 CRASHES=1 LOSSES=0 READERS=2"),
    ("locks", SAFETY, "N=3 L=2 OPS=1 CRASHES=0 LOSSES=0 READERS=2"),
    ("locks", LIVELOCK, "N=2 L=1 OPS=1 CRASHES=1 LOSSES=1"),
    ("journal", SAFETY, "N=3 GRANTS=2 TAKEOVERS=1 CUTS=0"),
    ("journal", SAFETY, "N=3 GRANTS=4 TAKEOVERS=1 CUTS=0 VERSIONS=2 ONE_BLOCK"),
    ("journal", SAFETY, "N=2 GRANTS=3 TAKEOVERS=1 CUTS=1 ONE_BLOCK"),
    ("journal", LIVELOCK, "N=2 GRANTS=3 TAKEOVERS=1 CUTS=0 ONE_BLOCK"),
    ("membership", SAFETY, "A=2 S=2 LEAVES=1"),
    ("membership", SAFETY, "A=3 S=3 SUSPICIONS=0"),
    ("membership", SAFETY, "A=3 S=2 CRASHES=0 SUSPICIONS=0"),
]
FULL = [
    ("locks", SAFETY, "N=2 L=1 OPS=2 CRASHES=1 LOSSES=1"),
    ("locks", SAFETY, "N=2 L=2 OPS=1 CRASHES=1 LOSSES=2 QUITS=1"),
    ("locks", SAFETY, "N=3 L=1 OPS=1 CRASHES=1 LOSSES=1"),
    ("locks", SAFETY, "N=3 L=2 OPS=1 CRASHES=0 LOSSES=0"),
    ("locks", SAFETY, "N=3 L=2 OPS=1 CRASHES=0 LOSSES=1 READERS=2"),
    ("locks", LIVELOCK, "N=3 L=1 OPS=1 CRASHES=0 LOSSES=0"),
    ("locks", LIVELOCK, "N=2 L=2 OPS=1 CRASHES=0 LOSSES=1"),
    ("journal", SAFETY, "N=3 GRANTS=3 TAKEOVERS=0 CUTS=0"),
    ("journal", SAFETY, "N=2 GRANTS=2 TAKEOVERS=0 CUTS=1"),
    ("membership", SAFETY, "A=3 S=2"),
    ("membership", SAFETY, "A=3 S=3"),
    ("membership", SAFETY, "A=3 S=2 CRASHES=0"),
    ("membership", SAFETY, "A=4 S=2 SUSPICIONS=0"),
]
# (model, what, definitions, the broken variant, what pan must say)
BROKEN = [
    ("locks", SAFETY, "N=2 L=1 OPS=2", "TAKES_FROM_RECOVERING", "dirty"),
    ("locks", SAFETY, "N=2 L=1 OPS=2", "HANDOVER_BEFORE_IN_PLACE", "dirty"),
    ("locks", SAFETY, "N=2 L=1 OPS=2", "BIT_IS_ENOUGH", "assertion"),
    ("locks", SAFETY, "N=2 L=1 OPS=2", "BELIEVES_ITS_GRANT", "assertion"),
    ("locks", SAFETY, "N=2 L=1 OPS=2", "NO_GENERATION", "stale"),
    ("locks", SAFETY, "N=2 L=1 OPS=2", "UPGRADE_BESIDE_SHARERS", "held"),
    ("locks", SAFETY, "N=2 L=1 OPS=2", "RECORDS_FIRST", "held"),
    ("locks", SAFETY, "N=2 L=1 OPS=2", "MISCOMPARE_IS_FAILURE", "assertion"),
    ("locks", SAFETY, "N=2 L=1 OPS=2", "NO_DISOWN", "want"),
    ("locks", LIVELOCK, "N=2 L=1 CRASHES=0 LOSSES=0", "REGISTERS_AGAIN", "non-progress cycle"),
    ("journal", SAFETY, "N=2 GRANTS=4 CUTS=0 VERSIONS=2 ONE_BLOCK", "NO_GENERATION", "must"),
    ("journal", SAFETY, "N=2 GRANTS=4 CUTS=0 VERSIONS=2 ONE_BLOCK", "NO_OWNER", "must"),
    ("journal", SAFETY, "N=2 GRANTS=4 CUTS=0 VERSIONS=2 ONE_BLOCK", "REPLAY_BEFORE_FENCE", "must"),
    ("journal", SAFETY, "N=2 GRANTS=4 CUTS=0 VERSIONS=2 ONE_BLOCK", "RECOVERER_NOT_FENCED", "must"),
    ("journal", SAFETY, "N=2 GRANTS=4 CUTS=0 VERSIONS=2 ONE_BLOCK", "RELEASE_BEFORE_IN_PLACE", "must"),
    ("journal", SAFETY, "N=2 GRANTS=3 CUTS=1 TAKEOVERS=0 ONE_BLOCK", "NO_FLUSH_AFTER_REPLAY", "must"),
    ("journal", SAFETY, "N=2 GRANTS=4 CUTS=0 TAKEOVERS=0 VERSIONS=0", "WRITES_BEFORE_COMMIT", "hold"),
    ("journal", SAFETY, "N=2 GRANTS=4 CUTS=1 TAKEOVERS=0 SUSPECTS=0 VERSIONS=0", "NO_DATA_FLUSH", "vol[2]"),
    ("journal", SAFETY, "N=2 GRANTS=4 CUTS=0 TAKEOVERS=0 INODE_VERSIONS=0", "NO_REVOKE", "vol[2]"),
    ("membership", SAFETY, "A=2 S=2 LEAVES=1", "LEASE_FROM_ANSWER", "lease"),
    ("membership", SAFETY, "A=2 S=2 LEAVES=1", "LEASE_WITHOUT_LOOK", "lease"),
    ("membership", SAFETY, "A=2 S=2 LEAVES=1", "LATER_BEAT_COUNTS", "lease"),
    ("membership", SAFETY, "A=2 S=2 LEAVES=1", "NO_SECOND_READ", "lease"),
    ("membership", SAFETY, "A=2 S=2 LEAVES=1", "NO_SECOND_LOOK", "replaced"),
    ("membership", SAFETY, "A=2 S=2 LEAVES=1", "NO_RESET", "replaced"),
    ("membership", SAFETY, "A=2 S=2 LEAVES=1", "REPLAY_BEFORE_FENCE", "replaced"),
    ("membership", SAFETY, "A=2 S=2 LEAVES=1", "LAST_UNREGISTERS", "replaced"),
    ("membership", SAFETY, "A=3 S=3 SUSPICIONS=0", "RECOVERER_NOT_FENCED", "again"),
    ("membership", SAFETY, "A=3 S=2", "JOINER_NOT_FENCED", "again"),
    ("membership", SAFETY, "A=3 S=3 CRASHES=0 WRITES=0 SUSPICIONS=2", "GIVES_BACK_UNDER_LEASE", "gate"),
]


class Failed(Exception):
    pass


def run(command, folder, limit_s):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit_s, check=False)
    return done.returncode, done.stdout + done.stderr


def verify(model, what, definitions, full):
    """Returns what pan printed."""
    compile_options, pan_options = PAN[what]
    defines = [f"-D{d}" for d in definitions.split()]
    broken = full is None
    with tempfile.TemporaryDirectory() as folder:
        preprocessor = f"-P{COMPILER} -E -x c"
        code, said = run(["spin", preprocessor, *defines, "-a", str(SPEC / f"{model}.pml")], folder, 60)
        if code != 0 or not os.path.exists(f"{folder}/pan.c"):
            raise Failed(f"spin: {said}")
        megabytes = MEGABYTES_FULL if full else MEGABYTES
        optimise = "-O0" if broken else "-O1"
        code, said = run([COMPILER, optimise, "-w", "-DCOLLAPSE", "-DVECTORSZ=2048", f"-DMEMLIM={megabytes}",
                          *compile_options, "-o", "pan", "pan.c"], folder, 120)
        if code != 0:
            raise Failed(f"{COMPILER}: {said}")
        _, said = run(["./pan", "-m200000", "-n", *pan_options], folder, 3600 if full else 120)
        return said


def states_of(said):
    found = re.search(r"(\d+(?:\.\d+e\+\d+)?) states, stored", said)
    return int(float(found[1])) if found else 0


def holds(said):
    complete = not re.search(r"MEMLIM|too small|not completed|out of memory|aborting", said)
    return complete and states_of(said) > 0 and bool(re.search(r"errors: 0\b", said))


def refuted(said, why):
    found = re.search(r"^pan:\d+: (.*)$", said, re.MULTILINE)
    return bool(found) and why in found[1] and bool(re.search(r"errors: [1-9]", said))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", default=bool(os.environ.get("CAWFS_TEST_FULL")))
    parser.add_argument("--only", default="", metavar="WORD")
    options = parser.parse_args()
    runs = [(*case, None, None) for case in SMALL + (FULL if options.full else [])] + BROKEN
    bad = 0
    seen = 0
    for model, what, definitions, variant, why in runs:
        name = f"{model} {what} {variant or ''} {definitions}"
        if options.only not in name:
            continue
        seen += 1
        began = time.monotonic()
        try:
            if variant:
                said = verify(model, what, f"{definitions} {variant}", None)
                good = refuted(said, why)
            else:
                said = verify(model, what, definitions, (model, what, definitions) in FULL)
                good = holds(said)
        except (Failed, subprocess.TimeoutExpired) as failure:
            good, said = False, str(failure)
        seconds = time.monotonic() - began
        verdict = ("refuted" if variant else "holds") if good else "WRONG"
        print(f"{verdict:8} {states_of(said):>9} states {seconds:6.1f} s  {shlex.join(name.split())}", flush=True)
        if not good:
            bad += 1
            print(said)
    if seen == 0:
        print("spec_test: nothing to run", file=sys.stderr)
    return 1 if bad or seen == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
