"""Fuzz one target, guided by what its input reaches in the compiled modules.

    python tests/fuzz/fuzz.py --target=NAME [CORPUS ...] [libFuzzer's options]

Needs atheris, and aisfast built with AISFAST_SANITIZE=coverage: `make fuzz` sees to both. What is found is written to
`crash-...` or `timeout-...`; with that file in place of a corpus it is run again. New finds go into the first CORPUS;
`-merge=1 NEW OLD ...` adds to NEW what the others hold that is not reached yet.
"""

import os
import sys


def main() -> None:
    sys.setdlopenflags(sys.getdlopenflags() | os.RTLD_GLOBAL)  # our modules look for libFuzzer's symbols
    import atheris
    import atheris.core_with_libfuzzer

    from targets import TARGETS

    names = [arg.removeprefix("--target=") for arg in sys.argv if arg.startswith("--target=")]
    if len(names) != 1 or names[0] not in TARGETS:
        sys.exit(f"usage: fuzz.py --target={'|'.join(TARGETS)} [CORPUS ...] [libFuzzer's options]")
    command = f"{sys.executable} {__file__}"  # libFuzzer runs it again, through a shell, to merge
    atheris.Setup([command, *sys.argv[1:]], TARGETS[names[0]], internal_libfuzzer=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
