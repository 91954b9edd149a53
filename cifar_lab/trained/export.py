"""A trained model in the files of other programs, which is kept only if they answer as the original does."""

import importlib.util
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_lab.errors import UsageError, UserError
from cifar_lab.files.shipped import install
from cifar_lab.models.description import Description
from cifar_lab.trained.card import model_card
from cifar_lab.trained.model import SavedModel
from cifar_lab.trained.network import load_module

OPSET = 18
TOLERANCE = 1e-4
NEEDED = ("onnx", "onnxruntime", "onnxscript")


def to_timm(saved: SavedModel, folder: Path) -> str:
    """Fill `folder` with what timm and the hub load; what was checked, in a line. Raises UserError."""
    if saved.description.name != "timm_zoo":
        raise UsageError(
            f"{saved.path} is a {saved.description.name}, which timm does not know: use --format onnx, or pass on "
            "model.safetensors with model.json (and the model's own file), which `cifar-lab evaluate` and `cifar-lab "
            "predict` read"
        )
    import timm  # here, since ONNX files need none

    module = load_module(saved)
    _write_timm(module, saved.description, folder)
    difference = _timm_difference(module, saved.description.image_size, folder)
    if difference != 0:
        raise UserError(f"timm {timm.__version__} loads other logits from the export (by {difference:.1e})")
    (folder / "README.md").write_text(model_card(saved, "timm"), encoding="utf-8")
    return f"timm {timm.__version__} loads it and gives the same logits"


def _write_timm(module: nn.Module, description: Description, folder: Path) -> None:
    size = (3, description.image_size, description.image_size)
    data = {
        "input_size": size,
        "mean": description.mean,
        "std": description.std,
        "interpolation": description.interpolation,
        "crop_pct": 1.0,
        "crop_mode": {"crop": "center", "pad": "border", "squash": "squash"}[description.fit],
    }
    from timm.models import save_for_hf

    # Labels, tag, licence and origin in the architecture's own configuration are those of its published weights.
    own = {"label_names": list(description.classes), "num_classes": description.num_classes}
    save_for_hf(module, str(folder), model_config=own, safe_serialization=True, data_config=data)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("tag", "license", "origin_url", "paper_ids", "paper_name", "notes", "label_descriptions"):
        config["pretrained_cfg"].pop(key, None)
    config_file = folder / "config.json"
    (folder / "model.safetensors").chmod(config_file.stat().st_mode)  # safetensors gives it to its owner alone
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _timm_difference(module: nn.Module, size: int, folder: Path) -> float:
    """Largest difference of the logits of two inputs, as timm loads them; 0 if every bit is the same."""
    import timm

    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((loaded(images) - module(images)).abs().max())


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


def to_onnx(saved: SavedModel, folder: Path) -> str:
    """Fill `folder` with an ONNX file that has everything inside; what was checked, in a line. Raises UserError."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} cannot be found: {install('onnx')}")
    description = saved.description
    model = FromPixels(load_module(saved), description.mean, description.std).eval()
    path = folder / "model.onnx"
    _write_onnx(model, description, path)
    difference = _onnx_difference(model, description.image_size, path)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the ONNX file gives other logits than the model: they differ by {difference:.1e}, more than {TOLERANCE:g}"
        )
    (folder / "README.md").write_text(model_card(saved, "onnx", opset=OPSET), encoding="utf-8")
    return f"opset {OPSET}; ONNX Runtime's logits differ by at most {difference:.1e} from the original's"


def _write_onnx(model: FromPixels, description: Description, path: Path) -> None:
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


def _onnx_difference(model: FromPixels, size: int, path: Path) -> float:
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
