"""Opening a W&B session with the run of a directory."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from typing import Any

import wandb

from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.wandb.record import Identity

REACH_SECONDS = 5.0
INIT_SECONDS = 30.0
# W&B gives up after 125 tries, some two hours, and then drops the rest without an error: let it try for weeks.
UPLOAD_TRIES = 100_000
TOPOLOGY = ("strategy", "world_size", "global_batch", "micro_batch", "accumulation_steps", "hosts", "device")


class ConnectError(Exception):
    """No session with the server; `passing` when another try may have one."""

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


def server() -> str:
    """The address of W&B's server."""
    return str(wandb.setup().settings.base_url)


def wants_offline() -> bool:
    """Whether the user told W&B to write files only (WANDB_MODE=offline, `wandb offline`)."""
    return str(wandb.setup().settings.mode) in ("offline", "dryrun")


def connect(run_dir: RunDir, identity: Identity, *, offline: bool = False, stats_pid: int | None = None) -> wandb.Run:
    """A session that continues the run; raises ConnectError. `stats_pid`: whose use of the machine W&B records."""
    if not offline and (reason := _unreachable(server())):
        raise ConnectError(reason, passing=True)
    settings = wandb.Settings(
        console="off",
        disable_code=True,
        init_timeout=INIT_SECONDS,
        x_disable_meta=stats_pid is None,
        x_disable_machine_info=stats_pid is None,
        x_disable_stats=stats_pid is None,
        x_stats_pid=stats_pid or os.getpid(),
        x_update_finish_state=stats_pid is not None or not _running(run_dir),
        x_file_stream_retry_max=UPLOAD_TRIES,
        # metrics.jsonl has it all.
        x_skip_transaction_log=not offline,
    )
    recipe = run_dir.recipe()
    try:
        return wandb.init(
            project=identity.project,
            entity=identity.entity,
            id=identity.id,
            resume="allow",
            name=f"{recipe.name}-{run_dir.path.name}",
            group=recipe.name,
            job_type="train",
            tags=list(recipe.tracking.tags),
            config=_config(run_dir),
            allow_val_change=True,
            mode="offline" if offline else "online",
            settings=settings,
        )
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
        raise ConnectError(_first_line(error), passing=False) from error
    except (wandb.Error, TimeoutError, OSError) as error:
        raise ConnectError(_first_line(error), passing=True) from error


def _running(run_dir: RunDir) -> bool:
    status = run_dir.status()
    return status is not None and status.state == "running"


def _config(run_dir: RunDir) -> dict[str, Any]:
    """The recipe as it is nested, and what the run runs on."""
    env = run_dir.env()
    return {
        **run_dir.recipe().model_dump(mode="json"),
        "revision": env.get("revision"),
        "topology": {key: env.get(key) for key in TOPOLOGY},
        "environment": env,
    }


def _unreachable(url: str) -> str | None:
    """Why no server answers at `url`, None when one does; W&B itself would try for minutes."""
    try:
        urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return None  # An answer, whatever it says.
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ssl.SSLError) else f"{url}: {error.reason}"
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
