"""How launch/node.sh counts the accelerators of a node: by what nvidia-smi and rocm-smi print, else by torch."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.node_sh import after


def test_how_many_processes(shown) -> None:
    for expected, gpus, variables in (
        ("3", 3, {}),
        ("2", 4, {"CUDA_VISIBLE_DEVICES": "1,3"}),
        ("1", 4, {"CUDA_VISIBLE_DEVICES": "0,-1,1"}),  # CUDA stops at the first that is none
        ("2", 4, {"CUDA_VISIBLE_DEVICES": "3,2,4,0"}),
        ("1", 4, {"CUDA_VISIBLE_DEVICES": "3,,2"}),
        ("1", 4, {"CUDA_VISIBLE_DEVICES": ""}),
        ("1", 4, {"CUDA_VISIBLE_DEVICES": "-1"}),
        ("1", 4, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}),  # what Slurm says to a job without GPUs
        ("2", 8, {"SLURM_GPUS_ON_NODE": "2"}),
        ("2", 0, {"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1", "TORCH_COUNTS": "2"}),
        ("1", 0, {"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1", "TORCH_COUNTS": "0"}),
    ):
        line, launch = shown(gpus=gpus, **variables)
        assert after(launch["argv"], "--nproc-per-node") == expected
        hidden = variables.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")
        assert line.endswith("on CPUs") == (hidden or variables.get("TORCH_COUNTS") == "0")
    for yes in ("true", "1"):
        line, launch = shown(gpus=2, ACCELERATE_USE_CPU=yes)
        assert line.endswith("on CPUs")
        assert launch["environ"]["CUDA_VISIBLE_DEVICES"] == ""


ROCM_SMI = """echo
echo '============================ ROCm System Management Interface ============================'
for gpu in 0 1; do
  printf 'GPU[%s]\\t\\t: Device Name: \\t\\tAMD Instinct MI250X\\n' $gpu
  printf 'GPU[%s]\\t\\t: Device ID: \\t\\t0x7408\\n' $gpu
  printf 'GPU[%s]\\t\\t: GUID: \\t\\t5656\\n' $gpu
done
echo '================================== End of ROCm SMI Log ==================================='
"""


@pytest.mark.parametrize(
    ("variables", "processes"),
    [
        ({}, "2"),
        ({"HIP_VISIBLE_DEVICES": "1"}, "1"),
        ({"ROCR_VISIBLE_DEVICES": "0,1"}, "2"),
        ({"SLURM_GPUS_ON_NODE": "1"}, "1"),
    ],
)
def test_amd_gpus_are_counted_and_not_hidden(shown, variables, processes) -> None:
    line, launch = shown(tools={"rocm-smi": ROCM_SMI}, **variables)
    assert after(launch["argv"], "--nproc-per-node") == processes
    assert not line.endswith("on CPUs")
    assert not {"CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU", "DS_ACCELERATOR"} & set(launch["environ"])
    _, launch = shown("--with", "accelerate", tools={"rocm-smi": ROCM_SMI})
    assert Path(after(launch["argv"], "--config_file")).name == "ddp.yaml"


def test_amd_gpus_that_are_hidden(shown) -> None:
    line, launch = shown(tools={"rocm-smi": ROCM_SMI}, HIP_VISIBLE_DEVICES="")
    assert (line.endswith("on CPUs"), after(launch["argv"], "--nproc-per-node")) == (True, "1")
    line, _ = shown(
        tools={"rocm-smi": "echo 'ERROR:root:Driver not initialized (amdgpu not found in modules)'; exit 2"}
    )
    assert line.endswith("on CPUs")


def test_a_process_sees_one_slice_of_mig(shown) -> None:
    """However many there are: NVIDIA's MIG User Guide, "CUDA Device Enumeration"."""
    listing = "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6)\n"
    listing += "".join(f"  MIG 3g.20gb     Device  {n}: (UUID: MIG-7c2e1f{n})\n" for n in range(2))
    listing += "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-6e6cb1e7)\n"
    tools = {"nvidia-smi": f"cat <<'END'\n{listing}END\n"}
    for variables in ({}, {"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "MIG-7c2e1f0,MIG-7c2e1f1"}):
        line, launch = shown(tools=tools, **variables)
        assert after(launch["argv"], "--nproc-per-node") == "1"
        assert line.endswith(", on one MIG slice: CUDA shows one slice to a process")
        assert launch["environ"].get("CUDA_VISIBLE_DEVICES") == variables.get("CUDA_VISIBLE_DEVICES")
    assert shown(tools=tools, CUDA_VISIBLE_DEVICES="")[0].endswith("on CPUs")
    plain = {"nvidia-smi": "echo 'GPU 0: A (UUID: GPU-1)'; echo 'GPU 1: A (UUID: GPU-2)'"}
    _, launch = shown(tools=plain, CUDA_VISIBLE_DEVICES="GPU-1,GPU-2")
    assert after(launch["argv"], "--nproc-per-node") == "2"


def test_torch_is_asked_where_no_tool_answers_and_something_hints_at_a_device(shown) -> None:
    for tools, variables, processes in (
        ({"xpu-smi": "exit 0"}, {"TORCH_COUNTS": "4"}, "4"),
        ({}, {"ZE_AFFINITY_MASK": "0,1", "TORCH_COUNTS": "2"}, "2"),
        ({}, {"ROCR_VISIBLE_DEVICES": "0", "TORCH_COUNTS": "1"}, "1"),  # /opt/rocm/bin is not on PATH
    ):
        line, launch = shown(tools=tools, **variables)
        assert after(launch["argv"], "--nproc-per-node") == processes
        assert not line.endswith("on CPUs")
        assert "CUDA_VISIBLE_DEVICES" not in launch["environ"]
