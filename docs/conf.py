"""How Sphinx makes the pages of this directory: `make docs`, warnings are errors."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))  # the sources beside us, whatever else is installed

from aisfast.errors import AISError
from aisfast.version import __version__

# Compiled modules are loaded as such: autodoc would look into their stubs, which have no docstrings.
for module in ("_items", "batch", "columns", "pipeline"):
    importlib.import_module(f"aisfast.{module}")

project = "aisfast"
author = "The aisfast authors"
copyright = "The aisfast authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]  # a directive is ::: and a block of code is ```, which tests run
default_role = "literal"  # docstrings write names in single backticks

autodoc_typehints = "none"  # signatures are long enough; the text says what is meant
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
# Lists of fields as they stand in the docstrings: one line of them may tell of several names.
napoleon_custom_sections = ["Source", ("Attributes", "params_style")]
napoleon_use_param = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"aisfast {__version__}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False


class ModuleText(SphinxDirective):
    """`{module-text} NAME`: the docstring of a module, which is Markdown, at its place in the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(importlib.import_module(self.arguments[0]).__doc__ or "")


def prepare(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Before napoleon reads a docstring."""
    # a plural, `Item`s: reStructuredText wants the end of a name marked
    lines[:] = re.sub(r"`([^`]+)`(\w?)", lambda m: f"`{m[1]}`" + (m[2] and f"\\ {m[2]}"), "\n".join(lines)).split("\n")
    if what in ("property", "attribute"):
        if re.match(r"\w+\.\w+: ", lines[0]):  # the type that Cython writes before the docstring
            del lines[:2]
        # Napoleon would take all before a colon for the type, and no section for one; a comment keeps it from looking.
        lines[:] = ["..", "", *GoogleDocstring(lines, app.config, app, "method", name, obj, options).lines()]


def without_arguments(app: Sphinx, what: str, name: str, obj: object, *_: Any) -> tuple[str, None] | None:
    """Errors are caught, not made: their arguments are told once."""
    is_error = isinstance(obj, type) and issubclass(obj, AISError) and obj is not AISError
    return ("", None) if is_error else None


def skipped(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    """Names that only say that they are not here."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Not part of aisfast") else None


def setup(app: Sphinx) -> None:
    app.add_directive("module-text", ModuleText)
    app.connect("autodoc-process-docstring", prepare, priority=400)
    app.connect("autodoc-process-signature", without_arguments)
    app.connect("autodoc-skip-member", skipped)
