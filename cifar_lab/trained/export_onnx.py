"""An ONNX file with everything inside, compared with the original in ONNX Runtime before it is kept."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_lab.errors import UserError
from cifar_lab.trained.card import model_card
from cifar_lab.trained.model import Description, SavedModel
from cifar_lab.trained.network import load_module

OPSET = 18
TOLERANCE = 1e-4
NEEDED = ("onnx", "onnxruntime", "onnxscript")
LARGEST = 1_500_000_000  # bytes of weights inside the file; its format ends at 2 GiB

USE = """\
```python
import json, numpy as np, onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
# float32 (batch, 3, {size}, {size}), RGB, 0 to 1: pixels divided by 255, nothing else; any batch
logits = session.run(["logits"], {{"images": images}})[0]
names = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
```

Opset {opset}. Mean and standard deviation are inside the graph."""


class OnnxExportError(UserError):
    """The file cannot be made, or would not give the model's answers."""


class FromPixels(nn.Module):
    """The network behind its normalisation: images float32 (b, 3, s, s), RGB on the 0..1 scale, to logits."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes)."""
        return self.network((images - self.mean) / self.std)


def export_onnx(saved: SavedModel, folder: Path) -> str:
    """Fill `folder`, which exists and is empty; what was checked, in a line. Raises OnnxExportError."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise OnnxExportError(f"{', '.join(missing)} cannot be found: pip install 'cifar-lab[onnx]'")
    description = saved.description
    model = FromPixels(load_module(saved), description.mean, description.std).eval()
    path = folder / "model.onnx"
    _convert(model, description, path)
    difference = _difference(model, description, path)
    if not difference <= TOLERANCE:
        raise OnnxExportError(
            f"the ONNX file gives other logits than the model: they differ by {difference:.1e}, more than {TOLERANCE:g}"
        )
    use = USE.format(size=description.image_size, opset=OPSET)
    (folder / "README.md").write_text(model_card(saved, use, "onnx"), encoding="utf-8")
    return f"opset {OPSET}; ONNX Runtime's logits differ by at most {difference:.1e} from the original's"


def _convert(model: FromPixels, description: Description, path: Path) -> None:
    size = description.image_size
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch", min=1)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (example,),
                input_names=["images"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamic_shapes={"images": {0: batch}},
                dynamo=True,
            )
            assert program is not None
            program.model.metadata_props.update(_metadata(description))
            program.save(str(path), external_data=weights > LARGEST)
    except Exception as error:  # the exporter wraps whatever it meets
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OnnxExportError(f"torch cannot export {description.name} to ONNX: {said}") from error


def _metadata(description: Description) -> dict[str, str]:
    """What a reader of the file needs to know, as ONNX keeps it: texts."""
    return {
        "classes": json.dumps(description.classes),
        "image_size": str(description.image_size),
        "source_size": str(description.source_size or ""),
        "interpolation": description.interpolation,
        "input": "images: float32 (batch, 3, height, width), RGB, 0 to 1; normalisation is inside of the graph",
        "mean": json.dumps(description.mean),
        "std": json.dumps(description.std),
    }


def _difference(model: FromPixels, description: Description, path: Path) -> float:
    """Largest difference of logits, of other batches than the one exported with; relative where they are above 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    size, worst = description.image_size, 0.0
    for batch in (1, 3):
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        (found,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            expected = model(images)
        error = (torch.from_numpy(found) - expected).abs() / expected.abs().clamp(min=1)
        worst = max(worst, float(error.max()))
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its steps, and it and its parts warn of what concerns themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
