"""Every process of a launch is refused, the first after `sys.argv[1]` seconds; which the others give `sys.argv[2]`."""

from __future__ import annotations

import argparse
import os
import sys
import time

from cifar_lab.cli import command
from cifar_lab.errors import UsageError


def refuse(_: argparse.Namespace) -> int:
    rank = int(os.environ["RANK"])
    time.sleep(0 if rank else float(sys.argv[1]))
    raise UsageError(f"refused on {rank}")


command.FIRST_SPEAKS_SECONDS = float(sys.argv[2])
sys.exit(command.answer(argparse.ArgumentParser(), refuse, []))
