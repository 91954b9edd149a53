"""wandb.json: which run of each tracker a directory is, for ever, and the W&B server that has all of it."""

import os
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cifar_lab.errors import UserError
from cifar_lab.files import atomic
from cifar_lab.recipe import Recipe

NAME = "wandb.json"
TRACKERS = {"wandb": "W&B", "tensorboard": "TensorBoard", "mlflow": "MLflow", "trackio": "trackio"}
# The exit status of a sending process that has said why something was not sent.
EXIT_NOT_SENT = 3


class Identity(BaseModel):
    """The run of a directory; `entity` None is the default one of the key, `whole_at` the W&B server with all of it."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str
    project: str
    entity: str | None = None
    whole_at: str | None = None

    def write(self, folder: Path) -> None:
        """Raises OSError on a full disk."""
        atomic.write_json(folder / NAME, self.model_dump())


def trackers(recipe: Recipe) -> list[str]:
    """Names of those that get a run, each once."""
    named = recipe.tracking.to
    if named is None:
        return ["wandb"] if recipe.tracking.wandb_project else []
    return list(dict.fromkeys(named))


def identify(folder: Path, project: str, entity: str | None) -> Identity:
    """The run's identity, kept from the first start on. Raises UserError and OSError.

    The first directory that starts under an agent of a sweep takes the run, project and entity that the agent gave.
    """
    path = folder / NAME
    try:
        return Identity.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        given = os.environ if _first_of_agent(folder) else {}
        made = Identity(
            id=given.get("WANDB_RUN_ID") or secrets.token_hex(8),
            project=given.get("WANDB_PROJECT") or project,
            entity=given.get("WANDB_ENTITY") or entity,
        )
        made.write(folder)
        return made
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged; delete it to send the run as a new one") from error


def _first_of_agent(folder: Path) -> bool:
    """Whether a run that an agent of a sweep started belongs to `folder`: a link beside the agent's file tells.

    Both variables may be exported in a shell, and what an agent starts may train several runs.
    """
    parameters = os.environ.get("WANDB_SWEEP_PARAM_PATH", "")
    if not (os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID") and os.path.isfile(parameters)):
        return False
    link = f"{parameters}.run"
    try:
        os.symlink(folder, link)  # one of several succeeds, and the link is whole at once
    except FileExistsError:
        return os.readlink(link) == str(folder)
    return True


def not_sent(folder: Path, reason: object, tracker: str) -> str:
    """What the user is told when a tracker lacks something."""
    return f"{TRACKERS[tracker]}: {reason}; metrics.jsonl has everything, `cifar-lab sync {folder}` sends it"
