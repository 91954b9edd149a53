"""What `accelerate launch` says to the processes, made by its own code, and what the check of a start makes of it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import launch as prepare
from support.small import small

from cifar_lab.errors import UsageError
from cifar_lab.recipe import Recipe, parse_recipe
from cifar_lab.runtime.launcher import check_launch


def recipe(**overrides: Any) -> Recipe:
    return parse_recipe(small(**overrides))


def problems(environ: dict[str, str], of: Recipe | None = None) -> list[str]:
    """What the check refuses, line by line."""
    try:
        check_launch(environ, of or recipe())
    except UsageError as error:
        return str(error).splitlines()
    return []


def arguments(*options: str) -> argparse.Namespace:
    """What `accelerate launch` makes of its command line."""
    return _validate_launch_command(launch_command_parser().parse_args([*options, "-m", "cifar_lab.train"]))[0]


def said(args: argparse.Namespace) -> dict[str, str]:
    """The environment that `accelerate launch` gives to processes, as far as it makes it itself."""
    if args.use_deepspeed:
        environ = prepare.prepare_deepspeed_cmd_env(args)[1]
    elif args.multi_gpu or args.use_fsdp or args.use_megatron_lm:
        environ = prepare.prepare_multi_gpu_env(args)
    else:
        environ = prepare.prepare_simple_launcher_cmd_env(args)[1]
    return {name: value for name, value in environ.items() if os.environ.get(name) != value}
