"""Files outside of the package: `./my_model.py` in a recipe, `my_model.py#HASH` once it is read.

The hash is of the content, so the name says which code is meant, wherever the file lies and whether it is there or not.
"""

import hashlib
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from cifar_lab.recipe.errors import RecipeError

_NAME = re.compile(r"(.+\.py)(?:#([0-9a-f]{16}))?")
_PLACES: dict[str, Path] = {}  # where this process has seen the file of a name


def is_outside(name: str) -> bool:
    """Whether a name is that of a file outside of the package."""
    return _NAME.fullmatch(name) is not None


def settle(name: str, folder: Path) -> str:
    """`FILE.py#HASH` of a file named as seen from `folder`; other names as they are.

    Raises RecipeError where it is missing, or another one; a name that has its hash needs no file yet.
    """
    if (match := _NAME.fullmatch(name)) is None:
        return name
    path, digest = Path(folder, match[1]).absolute(), match[2]
    found = _digest(path.read_bytes()) if path.is_file() else digest
    if found is None:
        raise RecipeError([f"there is no file {path}; correct the path, which is seen from {folder.absolute()}"])
    if digest not in (None, found):
        raise RecipeError([f"{path} is another file than {name} was; bring that back, or leave out `#{digest}`"])
    settled = f"{path.name}#{found}"
    if path.is_file() or settled not in _PLACES:
        _PLACES[settled] = path
    return settled


def place(name: str) -> Path:
    """Where the file of a settled name was last seen, or should be; nowhere for other names."""
    return _PLACES.get(name, Path(f"{name}#"))


def content(name: str) -> bytes:
    """The file of a settled name. Raises RecipeError where it is gone or was changed since."""
    found = place(name).read_bytes() if place(name).is_file() else b""
    if not name.endswith(f"#{_digest(found)}"):
        raise RecipeError([f"{place(name)} was changed or removed after the recipe was read; bring {name} back"])
    return found


def load(name: str) -> ModuleType:
    """The module of a settled name, imported once. Raises RecipeError with the line where that fails."""
    private = f"_outside_{re.sub('[^0-9A-Za-z]', '_', name)}"
    if private not in sys.modules:
        text, path = content(name), str(place(name))
        module = sys.modules[private] = ModuleType(private)  # dataclasses, for one, look for it there
        module.__file__ = path
        try:
            exec(compile(text, path, "exec", dont_inherit=True), vars(module))
        except (Exception, SystemExit) as error:
            del sys.modules[private]
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
            place_in_it = f"{path}:{lines[-1] if lines else 1}"
            raise RecipeError([f"{place_in_it}: {type(error).__name__}: {error}; correct that file"]) from error
    return sys.modules[private]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
