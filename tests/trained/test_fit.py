"""Pictures of any shape are brought to the net's size as in training, wherever the net is used."""

import json

import numpy as np
import pytest
from PIL import Image
from support.small import small

from cifar_lab.commands import predict
from cifar_lab.train import run
from cifar_lab.trained.export import to_timm
from cifar_lab.trained.model import open_saved


@pytest.mark.parametrize(("fit", "crop_mode"), [("pad", "border"), ("squash", "squash")])
def test_predict_and_exports_bring_pictures_to_a_size_as_training_does(tmp_path, capsys, fit, crop_mode):
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for index in range(count):
            folder = tmp_path / "data" / split / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            colours = Image.fromarray(draw.integers(0, 256, (3, 4, 3), dtype=np.uint8))
            colours.resize((40, 20) if index % 3 else (18, 27)).save(folder / f"{index:02}.png")
    args = {"id": "mine", "size": 16, "fit": fit}
    data = {"name": "hub", "args": args, "root": str(tmp_path / "data"), "val_size": 4, "image_size": 32}
    model = {"name": "timm_zoo", "args": {"arch": "test_efficientnet"}}
    done = run(small(data=data, model=model, train__global_batch=4), run_dir=str(tmp_path / "run")).run_dir
    assert json.loads((done.path / "model.json").read_text())["fit"] == fit
    capsys.readouterr()
    assert predict.main([str(done.path), str(tmp_path / "data" / "test"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["prepared"]["fit"] == fit
    with np.load(done.path / "predictions.npz") as kept:
        found = [one["top"][0]["probability"] for one in told["pictures"]]
        np.testing.assert_allclose(found, kept["confidences"], atol=1e-5)
    (tmp_path / "timm").mkdir()
    to_timm(open_saved(str(done.path)), tmp_path / "timm")
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"]["crop_mode"] == crop_mode
    assert "no squares" in (tmp_path / "timm" / "README.md").read_text()
