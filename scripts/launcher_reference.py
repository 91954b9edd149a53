#!/usr/bin/env python3
"""Writes docs/launchers.md: `python scripts/launcher_reference.py`."""

from __future__ import annotations

from pathlib import Path

from cifar_lab.runtime.launcher import OF_THE_RECIPE, OFF, SETTINGS, Setting

PATH = Path(__file__).parents[1] / "docs" / "launchers.md"

HEAD = """\
# What a launcher may say

Written from [the table](../cifar_lab/runtime/launcher.py) by `python scripts/launcher_reference.py`: change that, not
this file.

A launcher says how many processes run where; the recipe says what is trained. Whatever `accelerate launch` or its
configuration (`--config_file`, else what `accelerate config` has written) says beyond that is one of these:

- **obeyed**;
- **refused**: another value than those that pass stops the start, before anything is loaded, with a message that names
  where it was said and which key of the recipe decides it;
- **neutral**: without effect here, for the reason that stands beside it.

What `accelerate config` writes when all its questions are answered by Enter is obeyed or neutral. Variables that begin
with `ACCELERATE_` and are not below are told in a warning. What reaches PyTorch and its libraries directly is obeyed by
them: `--num_processes`, `--num_machines`, `--machine_rank`, `--main_process_ip`, `--main_process_port`, `--gpu_ids`,
`--num_cpu_threads_per_process`, and so are `MASTER_ADDR`, `MASTER_PORT`, `NCCL_*`, `OMP_*`, `KMP_*`.

- **More processes than devices** on a machine are refused: two on one GPU would fail in NCCL.
- **`ACCELERATE_USE_CPU=true`** trains on CPUs, under `torchrun`, `accelerate launch` and plain `python` alike. With
  DeepSpeed it is refused, since Accelerate would take DDP.
- **Two launches on one machine** both run. The files of `accelerate_configs/` for one machine take any free port
  (`main_process_port: 0`), and so does `torchrun`. Without such a file `accelerate launch` takes 29500, or another port
  with a warning where that is taken; two that start in the same second need `--main_process_port 0`. Processes that are
  given a `MASTER_PORT` which is taken end with a message that says so.
"""


def launcher_text() -> str:
    """The whole of docs/launchers.md."""
    lines = [HEAD, "| variable | launcher's option, key of its configuration | verdict | why | passes |"]
    lines += ["|---|---|---|---|---|", *map(_row, SETTINGS), ""]
    lines += ["A row with `*` stands for all variables that begin like this and have no row of their own.", ""]
    lines += [
        "## Keys of a DeepSpeed file",
        "",
        "Refused, unless they are `auto` or not enabled; the others are obeyed.",
    ]
    lines += ["", "| key of the file | key of the recipe |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{key}` | `{by}` |" for key, by in OF_THE_RECIPE.items())]) + "\n"


def _row(setting: Setting) -> str:
    passes = "any"
    if setting.verdict == "refused" and not setting.variable.endswith("*"):
        passes = "off" if setting.passes == OFF else ", ".join(f"`{value}`" for value in setting.passes)
        passes += f", that of `{setting.key}`" if setting.key else ""
    elif setting.verdict == "refused":
        passes = ""
    place = ", ".join(f"`{said}`" for said in setting.place.split(", ") if said) or "none"
    return f"| `{setting.variable}` | {place} | {setting.verdict} | {setting.why} | {passes} |"


if __name__ == "__main__":
    PATH.write_text(launcher_text(), encoding="utf-8")
    print(f"wrote {PATH}")
