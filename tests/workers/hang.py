"""Started by torchrun: two gloo processes step together until something happens to one of them.

    torchrun ... tests/workers/hang.py RUN_FOLDER HANG_TIMEOUT VALIDATION_SECONDS

Steps of 0.05 s with an all-reduce each, a validation after step 10. Rank 0 prints where it is. SIGTERM ends the loop at
a step boundary with status 75.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime.signals import die_with_parent, stop_flag
from cifar_lab.training.watchdog import Presence, Watchdog


def main(folder, hang_timeout, validation_seconds):
    with stop_flag() as flag:
        die_with_parent(grace=5.0)
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        run_dir = RunDir(folder)
        claimed = [claim(Path(folder))] if rank == 0 else [None]
        dist.broadcast_object_list(claimed)
        if rank == 0:
            run_dir.write_status("running", 0, 10**6, world_size=2)
        heartbeat = Heartbeat(Path(folder), rank, claimed[0].number)
        with heartbeat, Watchdog(Presence(run_dir, claimed[0], heartbeat, flag), 2, float(hang_timeout)):
            train(heartbeat, flag, float(validation_seconds))
    sys.exit(75)


def train(heartbeat, flag, validation_seconds):
    heartbeat.phase("train")
    step = 0
    while True:
        time.sleep(0.05)
        stop = torch.tensor([float(flag.reason is not None)])
        dist.all_reduce(stop)
        if stop.item():
            return
        step += 1
        heartbeat.step(step)
        if step == 10:
            with heartbeat.during("validation"):
                time.sleep(validation_seconds)
            if heartbeat.rank == 0:
                print("validated", flush=True)
        if step == 20 and heartbeat.rank == 0:
            print("training", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
