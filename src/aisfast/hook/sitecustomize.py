"""What `aisfast run` has every Python of a program load at its start: batches of the official SDK take our path.

Laws: nothing is imported here that the program does not import itself; when `aistore.sdk` has been loaded, and only
then, it is accelerated. A `sitecustomize` of the program's own still runs. What goes wrong is told on stderr and never
ends the program.
"""

from __future__ import annotations

import sys
from os.path import dirname, realpath

TYPE_CHECKING = False  # every Python of the program loads this: `typing` and `importlib.util` take milliseconds
if TYPE_CHECKING:
    from typing import Any

HERE = realpath(dirname(__file__))
WATCHED = "aistore.sdk"


class Watch:
    """A finder that finds nothing itself: it sees `aistore.sdk` being looked for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != WATCHED:
            return None
        for finder in sys.meta_path:
            find_spec = None if finder is self else getattr(finder, "find_spec", None)
            spec = find_spec(name, path, target) if find_spec else None
            if spec is not None:
                if spec.loader is not None:
                    self.follow(spec)
                return spec
        return None

    def follow(self, spec: Any) -> None:
        """Have the module accelerated as soon as it is loaded."""
        loader = spec.loader
        load = loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            try:
                sys.meta_path.remove(self)
                import aisfast

                aisfast.accelerate(on_unsupported="warn")
            except Exception as error:
                print(f"aisfast: {sys.executable} runs without acceleration: {error}", file=sys.stderr)

        loader.exec_module = exec_module


def _chain() -> None:
    """Load the `sitecustomize` that would have been found without ours, in its place."""
    sys.path[:] = [place for place in sys.path if realpath(place or ".") != HERE]
    ours = sys.modules.pop(__name__)
    try:
        __import__(__name__)
    except ModuleNotFoundError as error:
        if error.name != __name__:
            raise
    finally:
        sys.modules.setdefault(__name__, ours)


if not any(type(finder).__name__ == "Watch" for finder in sys.meta_path):
    sys.meta_path.insert(0, Watch())
_chain()
