"""What is written here in C, or becomes C, is standard C11: it builds without a warning, and has nothing MSVC lacks.

Sources that no Windows build compiles say so themselves, by an `#error`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CYTHON = sorted([*ROOT.glob("src/aisfast/*.pyx"), *ROOT.glob("src/aisfast/*.pxd")])
C = sorted([*ROOT.glob("bench/*.c"), *ROOT.glob("tests/fuzz/*.c")])
HEADERS = {
    *("assert.h", "ctype.h", "errno.h", "float.h", "inttypes.h", "limits.h", "math.h", "setjmp.h", "signal.h"),
    *("stdarg.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h", "string.h", "time.h"),
    *("immintrin.h", "intrin.h", "Python.h"),
}
LACKING = {
    "a function": r"\b(memmem|memrchr|strndup|strsep|strcasecmp|strncasecmp|stpcpy|alloca|usleep|posix_memalign)\b",
    "ssize_t": r"\bssize_t\b",
    "a built-in": r"\b__(builtin|sync|atomic)_\w+",
    "an attribute": r"\b__attribute(__)?\b",
    "a statement expression": r"\(\s*\{",
    "a keyword": r"\b(__typeof__|typeof|__asm__|asm|__thread|__int128|__extension__)\b",
    "?: of two": r"\?\s*:",
}
MSVC = {"_MSC_VER": 1940, "_WIN32": 1, "_WIN64": 1, "_M_X64": 100}  # the rest is not defined
BLOCK = re.compile(r'^cdef extern from [^\n]*:\n\s*"""(.*?)"""', re.MULTILINE | re.DOTALL)
WITH_C = [path for path in CYTHON if BLOCK.search(path.read_text("utf-8"))]
FLAGS = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]


def holds(condition: str) -> bool:
    """Does an #if hold where MSVC compiles?"""
    words = re.sub(r"defined\s*\(?\s*(\w+)\s*\)?", lambda found: str(int(found[1] in MSVC)), condition)
    words = re.sub(r"\b[A-Za-z_]\w*", lambda found: str(MSVC.get(found[0], 0)), words)
    words = re.sub(r"!(?!=)", " not ", words).replace("&&", " and ").replace("||", " or ")
    return bool(eval(words, {"__builtins__": {}}))


def seen_by_msvc(c: str) -> str:
    """The lines of C that MSVC would compile, without comments and the contents of strings."""
    c = re.sub(r"/\*.*?\*/|//[^\n]*", " ", c, flags=re.DOTALL)
    c = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', c)
    kept, open_ifs = [], []  # of each #if: is this branch compiled? was one so far?
    for line in c.replace("\\\n", " ").split("\n"):
        directive, _, rest = re.sub(r"^\s*#\s*", "#", line).strip().partition(" ")
        if directive in ("#if", "#ifdef", "#ifndef"):
            held = holds(rest) if directive == "#if" else (rest.strip() in MSVC) == (directive == "#ifdef")
            open_ifs.append((held, held))
        elif directive in ("#elif", "#else"):
            _, before = open_ifs.pop()
            held = not before and (directive == "#else" or holds(rest))
            open_ifs.append((held, before or held))
        elif directive == "#endif":
            open_ifs.pop()
        elif all(held for held, _ in open_ifs):
            if directive == "#error":
                break
            kept.append(line)
    assert not open_ifs or directive == "#error"
    return "\n".join(kept)


def lacking(text: str, headers: list[str]) -> list[str]:
    """What MSVC lacks of this."""
    found = [f"{what}: {match[0]}" for what, pattern in LACKING.items() for match in re.finditer(pattern, text)]
    return found + [f"a header: {name}" for name in headers if name not in HEADERS]


def lacking_in_c(c: str) -> list[str]:
    seen = seen_by_msvc(c)
    return lacking(seen, re.findall(r"^\s*#\s*include\s*<([^>]+)>", seen, re.MULTILINE))


def lacking_in_cython(source: str) -> list[str]:
    found = [one for block in BLOCK.findall(source) for one in lacking_in_c(block)]
    headers = re.findall(r'^\s*cdef extern from "([^"]+)"', source, re.MULTILINE)
    code = re.sub(r'""".*?"""|"(?:[^"\\\n]|\\.)*"', '""', source, flags=re.DOTALL)
    code = re.sub(r"#[^\n]*", "", code)
    headers += re.findall(r"\b(posix(?:\.\w+)?)\s+cimport\b|\bcimport\s+(posix[.\w]*)", code) and ["posix"]
    return found + lacking(code, headers)


@pytest.mark.parametrize("path", [*CYTHON, *C], ids=lambda path: path.name)
def test_ours_has_what_msvc_has(path: Path) -> None:
    source = path.read_text("utf-8")
    assert (lacking_in_c(source) if path.suffix == ".c" else lacking_in_cython(source)) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("char *p = memmem(a, 1, b, 1);", "a function: memmem"),
        ("ssize_t n;", "ssize_t: ssize_t"),
        ("if (__builtin_expect(a, 0)) b();", "a built-in: __builtin_expect"),
        ("__attribute__((noinline)) int f(void);", "an attribute: __attribute__"),
        ("int a = ({ int b = 1; b; });", "a statement expression: ({"),
        ("__typeof__(a) b;", "a keyword: __typeof__"),
        ("a = b ?: c;", "?: of two: ?:"),
        ("#include <unistd.h>\n", "a header: unistd.h"),
        ("#ifdef __linux__\n#else\nssize_t n;\n#endif", "ssize_t: ssize_t"),
        ("#if !defined(__GNUC__) || _MSC_VER >= 1900\nssize_t n;\n#endif", "ssize_t: ssize_t"),
        ("#ifndef _WIN32\n#error \"not this\"\n#endif\nssize_t n;", "ssize_t: ssize_t"),
    ],
)
def test_the_search_finds(source: str, found: str) -> None:
    assert lacking_in_c(source) == [found]
    assert lacking_in_cython(f'cdef extern from *:\n    """\n    {source}\n    """\n    int f()\n') == [found]


@pytest.mark.parametrize(
    "source",
    [
        "/* memmem */ // ssize_t\nPy_ssize_t n = call(\"ssize_t\");",
        "struct point p = (struct point) {1, 2}; int a = b ? c : d;",
        "#ifdef __GNUC__\n__attribute__((cold))\n#elif defined(__clang__)\nssize_t n;\n#endif\nint f(void);",
        "#ifdef _MSC_VER\nint n;\n#else\nssize_t n;\n#endif",
        "#if defined(__x86_64__) && !defined(_MSC_VER) && (defined(__clang__) || __GNUC__ >= 9)\nssize_t n;\n#endif",
        "#ifdef _WIN32\n#error \"POSIX\"\n#endif\n#include <unistd.h>\nssize_t n;",
    ],
)
def test_the_search_knows_guards(source: str) -> None:
    assert lacking_in_c(source) == []


def test_the_search_reads_cython() -> None:
    assert lacking_in_cython("from posix.unistd cimport read\ncimport posix.time\n") == ["a header: posix"]
    assert lacking_in_cython("cdef ssize_t n  # of bytes\n") == ["ssize_t: ssize_t"]
    assert lacking_in_cython('cdef extern from "sys/socket.h":\n    int recv()\n') == ["a header: sys/socket.h"]
    assert lacking_in_cython('"""Of ssize_t."""\ncdef Py_ssize_t n = 0  # not ssize_t\n') == []


# ------------------------------------------------------------------------------------------------ as a compiler sees it


def warnings_of(c: str, *flags: str) -> str:
    """What the compiler has to say of C, all warnings on."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if os.name != "posix" or shutil.which(compiler[0]) is None:
        pytest.skip("needs POSIX and a C compiler")
    done = subprocess.run([*compiler, *FLAGS, *flags, "-xc", "-"], input=c, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not done.stderr)
    return done.stderr


def test_the_compiler_warns() -> None:
    assert "a" in warnings_of("int f(int a) { return 0; }")


@pytest.mark.parametrize("path", C, ids=lambda path: path.name)
def test_c_compiles_without_a_warning(path: Path) -> None:
    assert warnings_of(path.read_text("utf-8")) == ""


@pytest.mark.parametrize("other", [[], ["-D_MSC_VER=1940"]], ids=["here", "guarded-out"])
@pytest.mark.parametrize("path", WITH_C, ids=lambda path: path.name)
def test_c_in_cython_compiles_without_a_warning(path: Path, other: list[str]) -> None:
    source = path.read_text("utf-8")
    c = ["#include <stdint.h>", *BLOCK.findall(source)]
    for match in BLOCK.finditer(source):  # static and not used is warned of: use what Cython declares
        declared = re.split(r"^\S", source[match.end() :], maxsplit=1, flags=re.MULTILINE)[0]
        names = re.findall(r"^    \w[\w ]* \*?(\w+)\(", declared, re.MULTILINE)
        c += [f"void (*const use_of_{name})(void) = (void (*)(void)) {name};" for name in names]
    assert warnings_of("\n".join(c), *other) == ""
