"""An ONNX file with everything inside, compared with the original in ONNX Runtime before it is kept."""

from __future__ import annotations

import importlib.util
import json
import warnings
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


def export(saved: SavedModel, folder: Path) -> str:
    """Fill `folder`, which exists and is empty; what was checked, in a line. Raises UserError."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} cannot be found: pip install 'cifar-lab[onnx]'")
    description = saved.description
    model = FromPixels(load_module(saved), description.mean, description.std).eval()
    path = folder / "model.onnx"
    _convert(model, description, path)
    difference = _difference(model, description.image_size, path)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the ONNX file gives other logits than the model: they differ by {difference:.1e}, more than {TOLERANCE:g}"
        )
    (folder / "README.md").write_text(model_card(saved, "onnx", opset=OPSET), encoding="utf-8")
    return f"opset {OPSET}; ONNX Runtime's logits differ by at most {difference:.1e} from the original's"


def _convert(model: FromPixels, description: Description, path: Path) -> None:
    """Write the file; its metadata are model.json's entries, each as JSON."""
    size = description.image_size
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what concerns the exporter's own parts
            program = torch.onnx.export(
                model,
                (example,),
                input_names=["images"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                verbose=False,
            )
            entries = description.model_dump(mode="json").items()
            program.model.metadata_props.update({key: json.dumps(value) for key, value in entries})
            program.save(path, external_data=False)  # but for weights that its format cannot hold
    except Exception as error:  # the exporter wraps whatever it meets
        said = str(error).strip().partition("\n")[0]
        raise UserError(f"torch cannot export {description.name} to ONNX: {said}") from error


def _difference(model: FromPixels, size: int, path: Path) -> float:
    """Largest difference of logits, of other batches than the one exported with; relative where they are above 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in (1, 3):
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        (found,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            expected = model(images)
        error = (torch.from_numpy(found) - expected).abs() / expected.abs().clamp(min=1)
        worst = max(worst, float(error.max()))
    return worst
