"""Our compiled modules in a second interpreter: an ImportError, and the first one is not disturbed."""

import sys

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

import aisfast
from aisfast._delivery import Delivery

PROGRAM = f"""
import sys
sys.path[:] = {sys.path!r}
import aisfast, aisfast.errors, aisfast.policy
for name in "_arrow _blocks _decode _delivery _items _official _request _zip".split():
    try:
        __import__("aisfast." + name)
    except ImportError as error:
        assert "interpreter" in str(error), error
    else:
        raise AssertionError(name)
print("refused", flush=True)
"""
run = getattr(interpreters, "exec", None) or interpreters.run_string
second = interpreters.create()
failure = run(second, PROGRAM)
assert failure is None, failure
interpreters.destroy(second)
assert aisfast.Client("http://127.0.0.1:1").batch("o", aisfast.Client().bucket("b")) is not None
assert Delivery.__module__ == "aisfast._delivery"
print("first")
