"""What a cluster needs before python, as lines of the script: modules, an environment, a container, lines of one's own.

srun hands the environment of the script on to every node, so that they hold there, too.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from submit_options import Options, SubmitError

UNSEEN = "# shellcheck source=/dev/null"
# The shell of a job is no login shell, which alone defines `module` on many clusters.
MODULE = f"{UNSEEN}\ncommand -v module >/dev/null || source /etc/profile"
APPTAINER = "apptainer=$(command -v apptainer || command -v singularity) || {\n"
APPTAINER += "  echo 'there is no apptainer here: does a --module bring it?' >&2 && exit 2\n}"


def environment_lines(options: Options, checkout: Path, folders: Iterable[str]) -> list[str]:
    """The lines, one's own last; `folders` must be seen in a container. Raises SubmitError for what no line can say."""
    lines = [MODULE, f"module load {shlex.join(options.module)} || exit"] if options.module else []
    if options.conda:
        lines += ['eval "$(conda shell.bash hook)"', f"conda activate {shlex.quote(options.conda)} || exit"]
        lines += ["export CIFAR_LAB_PYTHON=$CONDA_PREFIX/bin/python"]
    if options.venv:
        venv = os.path.abspath(options.venv)
        lines += [UNSEEN, f"source {shlex.quote(f'{venv}/bin/activate')} || exit"]
        lines += [f"export CIFAR_LAB_PYTHON={shlex.quote(f'{venv}/bin/python')}"]
    if options.container:
        lines += [*_container(options.container, str(checkout), folders), "export CIFAR_LAB_PYTHON=python3"]
    return lines + (_own(Path(options.setup)) if options.setup else [])


def _container(image: str, checkout: str, folders: Iterable[str]) -> list[str]:
    """Apptainer runs FILE.sif, a folder and SCHEME://...; everything else is an image of pyxis."""
    seen = list(dict.fromkeys([checkout, *map(os.path.abspath, folders)]))
    odd = next((folder for folder in seen if re.search(r"[,:\r\n]", folder)), None)
    if odd is not None:
        raise SubmitError(f"--container: {odd!r} cannot be mounted: a comma, a colon or a line break is in its name")
    has_scheme = re.match(r"[a-z-]+://", image)
    if has_scheme or image.endswith(".sif") or os.path.isdir(image):
        words = ["exec", "--nv", "--bind", ",".join(seen), image if has_scheme else os.path.abspath(image)]
        return [APPTAINER, f'in_container=("$apptainer" {shlex.join(words)})']
    image = os.path.abspath(image) if os.path.exists(image) else image
    mounts = ",".join(f"{folder}:{folder}" for folder in seen)
    words = [f"--container-image={image}", f"--container-mounts={mounts}", f"--container-workdir={checkout}"]
    return [f"in_container=({shlex.join(words)})"]


def _own(file: Path) -> list[str]:
    try:
        text = os.fsdecode(file.read_bytes())
    except OSError as error:
        raise SubmitError(f"--setup {file}: cannot be read: {error.strerror}") from None
    if re.search(r"[\r\0]", text):
        raise SubmitError(f"--setup {file}: Slurm takes no carriage return and no NUL: save it with Unix line ends")
    if re.search(r"^#SBATCH", text, re.MULTILINE):
        raise SubmitError(f"--setup {file}: a line begins with #SBATCH: give that option to submit.py instead")
    return [f"# from {shlex.quote(str(file))}", *text.removesuffix("\n").split("\n")]
