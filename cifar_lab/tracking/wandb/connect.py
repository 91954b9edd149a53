"""Opening a W&B session with the run of a directory."""

from typing import Any

import wandb

from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.record import Identity
from cifar_lab.tracking.server import NotSentError, unreachable

INIT_SECONDS = 30.0
# W&B gives up after 125 tries, some two hours, and then drops the rest without an error: let it try for weeks.
UPLOAD_TRIES = 100_000
TOPOLOGY = ("strategy", "world_size", "global_batch", "micro_batch", "accumulation_steps", "hosts", "device")


def server() -> str:
    """The address of W&B's server."""
    return str(wandb.setup().settings.base_url)


def is_offline() -> bool:
    """Whether W&B is to write files only: WANDB_MODE=offline or `wandb offline`."""
    return str(wandb.setup().settings.mode) in ("offline", "dryrun")


def connect(run_dir: RunDir, identity: Identity, trainer: int | None) -> wandb.Run:
    """A session that continues the run; raises NotSentError. `trainer`: whose use of the machine W&B records."""
    offline = is_offline()
    if not offline and (reason := unreachable(server())):
        raise NotSentError(reason, passing=True)
    recipe, env, status = run_dir.recipe(), run_dir.env(), run_dir.status()
    settings = wandb.Settings(
        console="off",
        disable_code=True,
        init_timeout=INIT_SECONDS,
        x_disable_meta=trainer is None,
        x_disable_machine_info=trainer is None,
        x_disable_stats=trainer is None,
        x_stats_pid=trainer or 0,
        x_update_finish_state=trainer is not None or status is None or status.state != "running",
        x_file_stream_retry_max=UPLOAD_TRIES,
        # metrics.jsonl has it all.
        x_skip_transaction_log=not offline,
    )
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
            config={
                **recipe.model_dump(mode="json"),
                "revision": env.get("revision"),
                "topology": {key: env.get(key) for key in TOPOLOGY},
                "environment": env,
            },
            allow_val_change=True,
            mode="offline" if offline else "online",
            settings=settings,
        )
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
        raise NotSentError(error) from error
    except (wandb.Error, TimeoutError, OSError) as error:
        raise NotSentError(error, passing=True) from error
