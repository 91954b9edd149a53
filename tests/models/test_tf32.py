"""fp32 is fp32, or TF32 by the recipe's word, in products and convolutions alike."""

import json

import pytest
import torch
from support.runs import closed, opened
from support.saved_runs import saved_run
from support.small import small

import cifar_lab
from cifar_lab.models.tf32 import products, set_tf32


@pytest.fixture(autouse=True)
def as_before():
    yield
    set_tf32(False)


def allowed():
    """Whether products and convolutions of a GPU may be TF32, as torch's kernels ask."""
    return [op.fp32_precision == "tf32" for op in (torch.backends.cuda.matmul, torch.backends.cudnn.conv)]


def torch_s_own():
    """What torch begins with: TF32 in convolutions, and not in products."""
    set_tf32(False)
    torch.backends.cudnn.allow_tf32 = True
    assert allowed() == [False, True]


@pytest.mark.parametrize("on", [False, True])
def test_a_run_sets_both(on, tmp_path, caplog):
    torch_s_own()
    session = opened(small(train__tf32=on), tmp_path / "run")
    closed(session)
    assert allowed() == [on, on]
    assert json.loads((tmp_path / "run" / "env.json").read_text())["tf32"] == on
    told = [r.getMessage() for r in caplog.records if "tf32" in r.getMessage()]
    assert told == (["train.tf32 does nothing here, since this device (cpu) has no TF32"] if on else [])


@pytest.mark.parametrize("on", [False, True])
def test_all_who_ask_torch_get_the_same_answer(on):
    """The compiler asks in old ways and in new ones, and torch raises where they differ."""
    set_tf32(on)
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == on
    assert torch.get_float32_matmul_precision() == ("high" if on else "highest")
    with torch.backends.cudnn.flags(enabled=True):  # reads and puts back
        pass
    assert allowed() == [on, on]


@pytest.mark.parametrize("on", [False, True])
def test_a_saved_network_computes_as_its_run_did_and_leaves_no_trace(on):
    net, prepare = cifar_lab.load_model(saved_run("vit").path)
    net.tf32 = on
    seen, forward = [], net.module.forward

    def note(images):
        seen.append(allowed())
        return forward(images)

    net.module.forward = note
    torch_s_own()
    net(prepare(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)))
    assert seen == [[on, on]]
    assert allowed() == [False, True]


def test_a_block_ends_with_an_error_too():
    def fails():
        with products(tf32=True):
            assert allowed() == [True, True]
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert allowed() == [False, False]
