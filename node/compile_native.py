"""``make native``: compiles the engine's modules with mypyc to where ``node.native`` looks for them.

It takes mypy, a C compiler and Python's headers. What was compiled before is replaced once all is there.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mypyc.build import mypycify
from setuptools import setup
from setuptools.errors import CCompilerError

from node.native import FOLDER, GROUP, MODULES, NOTE, SOURCES, made_of

_DECORATOR = "@mypyc_attr(allow_interpreted_subclasses=True)"
_FUTURE = "\nfrom __future__ import annotations"
_IMPORT = "; MYPY = False\nif MYPY: from mypy_extensions import mypyc_attr\n"  # which mypy alone takes for done
# of two empty lines the second, so that in a traceback lines keep their numbers
_EMPTY_BEFORE_CLASS = r"\n\n\n(?=(@dataclass.*\n)?class \w+(:|\((?!NamedTuple|Protocol|IntEnum|StrEnum)))"


def main() -> None:
    """Compile; where that fails, say why and exit with 2."""
    FOLDER.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=FOLDER.parent) as made:
        built, of = Path(made, "built"), made_of()
        shutil.copytree(SOURCES, Path(made, "node"), ignore=shutil.ignore_patterns("__pycache__"))
        os.chdir(made)
        paths = [Path(f"{module.replace('.', '/')}.py") for module in MODULES]
        for path in paths:
            path.write_text(_picklable(path.read_text()))
        sources = ["--config-file=", *map(str, paths)]
        said = io.StringIO()  # that it makes lists of generators, say
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                extensions = mypycify(sources, opt_level="3", group_name=GROUP, target_dir="c")
        except SystemExit:
            print(f"make native: mypyc does not compile the engine:\n{said.getvalue()}", file=sys.stderr)
            raise
        options = ["--quiet", "build_ext", "--build-lib", str(built), "--build-temp", "objects"]
        try:
            setup(name=GROUP, packages=[], ext_modules=extensions, script_args=options)
        except (SystemExit, CCompilerError) as error:
            print(f"make native: no C compiler, or no headers of {sys.executable}: {error}", file=sys.stderr)
            print("on Debian: apt-get install gcc python3-dev", file=sys.stderr)
            sys.exit(2)
        (built / NOTE).write_text(of)
        shutil.rmtree(FOLDER, ignore_errors=True)
        built.rename(FOLDER)
    print(f"compiled {len(MODULES)} modules to {FOLDER}")


def _picklable(source: str) -> str:
    """A module whose classes can be made without their constructor, as those are that come out of a pickle.

    mypyc is told so by a decorator of a package that whoever runs the sources need not have: so it is not in them. (It
    has one that says just this, ``serializable``, but of release 2.4.1 such classes never run their constructor.)
    """
    told = re.sub(_EMPTY_BEFORE_CLASS, f"\n\n{_DECORATOR}\n", source)
    return told.replace(f"{_FUTURE}\n\n", f"{_FUTURE}{_IMPORT}", 1)


if __name__ == "__main__":
    main()
