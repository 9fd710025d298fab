"""The project's own rules that a regular expression can see: include directions, banned names, shapes of co_await.

Usage: rules.py FILE...      check the files; exit status 1 and a line per offence
       rules.py --self-test  see that each rule finds what it is for
"""
import re
import sys

# A folder includes itself and what stands left of it.
MAY_INCLUDE = {
    "core": ["core"],
    "disklock": ["core", "disklock"],
    "journal": ["core", "disklock", "journal"],
    "mount": ["core", "disklock", "journal", "mount"],
    "utils": ["core", "disklock", "journal", "utils"],
    "tests": ["core", "disklock", "journal", "mount", "utils", "tests"],
}

# Heavy headers: one .cpp each may include them.
HEAVY = {"CLI/": r"utils/.*|mount/.*", "spdlog/": r"core/base/log\.cpp", "nlohmann/": r"utils/.*|tests/.*"}

# (pattern, where it is banned, what to use instead)
BANNED = [
    (r"\b(system_clock|steady_clock|high_resolution_clock)\b", r"(core|disklock|journal)/", "the Clock handed in"),
    (r"\b(clock_gettime|gettimeofday|time)\(", r"(core|disklock|journal)/(?!runtime/)", "the Clock handed in"),
    (r"\b(s?rand|random_device)\b\s*[({]", r"(core|disklock|journal)/", "the Random handed in"),
    (r"(?<![.>\w])(u|nano)?sleep(_for|_until)?\(", r"(disklock|journal|core)/(?!runtime/)", "executor.sleep() or StopSource"),
    (r"std::(thread|jthread|mutex|condition_variable|async)\b", r"(core|disklock|journal)/(?!runtime/)",
     "a task; Reactor::run_blocking for what blocks"),
    (r"\b(goto|GTEST_SKIP|DISABLED_\w+)\b", r"", "a test that runs, code without goto"),
    (r"\bassert\(", r"", "CAWFS_ASSERT, which is on in release"),
    (r"\berrno\b|\bE(IO|NOENT|EXIST|NOSPC|AGAIN)\b", r"(disklock|journal|core/(fs|format|base))/", "Errc"),
    (r"\b(TODO|FIXME|XXX)\b", r"", "an issue, or the code itself"),
]

# What may stand left of co_await: nothing, a guard such as `if (x)`, `else` or `case 1:`, or an assignment.
BEFORE_AWAIT = re.compile(r"^\s*((\} )?(else )?(if|while|for) \(.*\) |(\} )?else |case .*: |default: )?([^?]*[^=!<>&|]= )?$")


def strip(line):
    """The line without string literals and comments."""
    return re.sub(r"//.*", "", re.sub(r'"(\\.|[^"\\])*"', '""', line))


def offences(path, text):
    top = path.split("/")[0]
    for number, raw in enumerate(text.splitlines(), 1):
        include = re.match(r'#include "((\w+)/[^"]+)"', raw)
        if include and top in MAY_INCLUDE and include[2] not in MAY_INCLUDE[top]:
            yield number, f"{top}/ must not include {include[1]}"
        for prefix, allowed in HEAVY.items():
            if re.match(rf"#include <{prefix}", raw) and (not path.endswith(".cpp") or not re.fullmatch(allowed, path)):
                yield number, f"<{prefix}...> is included by one .cpp that wraps it"
        line = strip(raw)
        for pattern, where, instead in BANNED:
            found = re.search(pattern, line)
            if found and re.match(where, path):
                yield number, f"'{found[0]}' is banned here: use {instead}"
        if "co_await" in line and "operator co_await" not in line:
            before = line[: line.index("co_await")]
            if before.count("(") != before.count(")") or not BEFORE_AWAIT.match(before):
                yield number, "co_await stands as a whole statement, or right of one '='"


CASES = [
    ("core/a.cpp", '#include "journal/log.h"'),
    ("mount/a.cpp", '#include "utils/x.h"'),
    ("core/a.h", "#include <spdlog/spdlog.h>"),
    ("core/fs/a.cpp", "auto t = std::chrono::steady_clock::now();"),
    ("journal/a.cpp", "usleep(3);"),
    ("disklock/a.cpp", "std::mutex m;"),
    ("core/fs/a.cpp", "return -EIO;"),
    ("mount/a.cpp", "assert(x);"),
    ("journal/a.cpp", "  auto x = a ? co_await f() : g();"),
    ("journal/a.cpp", "  if (co_await f()) return;"),
    ("journal/a.cpp", "  if (auto r = co_await f(); !r) co_return r;"),
    ("journal/a.cpp", "  foo(co_await f());"),
    ("journal/a.cpp", "  co_return co_await f();"),
]
CLEAN = [
    ("journal/a.cpp", "  auto x = co_await f(a ? 1 : 2);"),
    ("journal/a.cpp", "  co_await f();"),
    ("journal/a.cpp", "  while (n > 0) co_await f();"),
    ("journal/a.cpp", "  if (n == 0) x = co_await f();"),
    ("journal/a.cpp", '#include "core/base/error.h"'),
    ("journal/a.cpp", "  // if (co_await f())"),
]


def main():
    if sys.argv[1:] == ["--self-test"]:
        missed = [case for case in CASES if not list(offences(*case))]
        wrong = [case for case in CLEAN if list(offences(*case))]
        for case in missed + wrong:
            print(f"rules.py: self-test: {'missed' if case in missed else 'wrongly reported'}: {case}", file=sys.stderr)
        return 1 if missed or wrong else 0
    found = 0
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            for number, message in offences(path, file.read()):
                print(f"{path}:{number}: {message}", file=sys.stderr)
                found += 1
    return 1 if found else 0


sys.exit(main())
