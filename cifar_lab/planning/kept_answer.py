"""Questions about a model that only torch can answer: asked of a child process once, the answer kept in the cache."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cifar_lab.data.sizes import DataSizes
from cifar_lab.errors import UsageError, UserError
from cifar_lab.files import atomic
from cifar_lab.files.cache import cache_root
from cifar_lab.recipe import outside
from cifar_lab.recipe.schema import Model

# What can be asked: a module of cifar_lab, and its function of a model and the rest of the content.
FUNCTIONS = {"models.size": "model_size", "planning.activations": "footprint"}


def ask(module: str, model: Model, sizes: DataSizes, *, measure: bool = True, **more: str) -> dict[str, Any]:
    """What `module` says of the size of `model`, kept or new; its initial weights do not matter.

    Raises UsageError; without `measure` for what was not asked before, at once.
    """
    described = model.model_dump(mode="json") | {"pretrained": False, "weights": None}
    content = {"model": described, "num_classes": sizes.num_classes, "image_size": sizes.image_size, **more}
    content["folder"] = str(outside.place(model.name).parent)
    place = _place(module, content)
    with suppress(OSError, ValueError):
        known: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        return known
    if not measure:
        raise UsageError("the model was not measured yet; `cifar-lab plan` does")
    if module == "planning.activations":
        name = model.args.get("arch", model.name)
        told = f"measuring {name} without memory, once: 10 s of an idle core for the largest nets, longer on a busy one"
        print(told, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "cifar_lab.planning.kept_answer", module]
    child = subprocess.run(command, input=json.dumps(content), capture_output=True, text=True, check=False)
    if child.returncode != 0:
        raise UsageError(f"the model cannot be measured: {(child.stderr.strip().splitlines() or ['?'])[-1]}")
    answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    if "error" in answer:
        raise UsageError(answer["error"])
    with suppress(OSError):  # an answer that cannot be kept is asked for again
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(place, answer)
    return answer


def _place(module: str, content: dict[str, Any]) -> Path:
    """The file of an answer; a change of the code that answers asks anew."""
    package = Path(__file__).parents[1]
    files = [*package.glob("models/**/*.py"), *package.glob("planning/*.py"), package / "data" / "mixing.py"]
    code = "".join(file.read_text(encoding="utf-8") for file in sorted(files)) + version("torch") + version("timm")
    name = hashlib.sha256((json.dumps(content, sort_keys=True) + code).encode()).hexdigest()[:32]
    return cache_root(Path(tempfile.gettempdir(), f"cifar_lab-{os.getuid()}")) / module / f"{name}.json"


def main() -> None:
    """The child: answer the question on standard input, in JSON on standard output."""
    module, content = sys.argv[1], json.load(sys.stdin)
    function = getattr(importlib.import_module(f"cifar_lab.{module}"), FUNCTIONS[module])
    model = Model(**content.pop("model"))
    try:
        outside.settle(model.name, Path(content.pop("folder")))
        print(json.dumps(asdict(function(model, **content))))
    except UserError as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()
