"""A Python package that is not installed, in one line for the user."""

import importlib.metadata
import importlib.util
import re

# Where the name of an import is not that of its package.
_PACKAGES = {"PIL": "pillow", "pydantic_core": "pydantic", "yaml": "pyyaml"}


def missing_package(error: ModuleNotFoundError) -> str:
    """What to install, in the versions that were tested. Raises `error` where no package is missing."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "cifar_lab") or importlib.util.find_spec(name) is not None:
        raise error
    package = _PACKAGES.get(name, name)
    try:
        required = importlib.metadata.requires("cifar-lab") or []
    except importlib.metadata.PackageNotFoundError:
        required = []
    found = (re.match(rf"{package}\b[^;]*", line, re.IGNORECASE) for line in required)
    wanted = next((match[0].strip() for match in found if match), package)
    return f"the Python package {package} is not installed: pip install '{wanted}'"
