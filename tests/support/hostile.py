"""Texts that would do something if anything on the way to a job read them as more than text.

`CANARY` in them stands for a file that must never appear.
"""

from __future__ import annotations

TEXTS = {
    "substitution": "$(touch CANARY)",
    "backticks": "`touch CANARY`",
    "nested": "$($(echo touch) CANARY)",
    "semicolon": "a; touch CANARY; b",
    "background": "a & touch CANARY & b",
    "or": "a || touch CANARY",
    "pipe": "a | tee CANARY",
    "redirection": "a > CANARY",
    "process substitution": "<(touch CANARY)",
    "single quotes": "it's '; touch CANARY; '",
    "closing quotes": "'\"'\"'; touch CANARY #",
    "double quotes": 'a"; touch CANARY; "b',
    "ANSI-C quotes": "$'\\n'; touch CANARY",
    "escaped quote": "\\'; touch CANARY; \\'",
    "backslash at the end": "a\\",
    "newline": "a\ntouch CANARY\nb",
    "newline after a backslash": "a\\\ntouch CANARY\\\n",
    "directive": "a\n#SBATCH --time=1\n#SBATCH --partition=low\n#SBATCH --output=CANARY\nb",
    "carriage return": "a\rtouch CANARY\r\nb",
    "shebang": "#!/bin/touch CANARY",
    "end of a case": ") touch CANARY ;; esac; touch CANARY",
    "here document": "<<EOF\n$(touch CANARY)\nEOF",
    "parameter": "${HOME}$SLURM_JOB_ID${x:=`touch CANARY`}$((a[$(touch CANARY)]))",
    "glob": "* /etc/* [a-z] ?",
    "braces": "{a,b}{1..3}",
    "tilde": "~root ~/x",
    "history": "!! !touch ^a^b",
    "spaces": "  two  words\tand a tab ",
    "percent": "%j %x %A %s %n %%",
    "unicode": "naïve “quotes” \u2018here\u2019 模型 \u202e\u2028\u00a0",
    "control characters": "\x011\x1b]0;touch CANARY\x07\x7f",
    "not UTF-8": "\udcff\udcfe",
    "empty": "",
    "option": "--wrap=touch CANARY",
    "option of node.sh": "--run-dir=CANARY",
    "end of options": "-- --fresh",
    "long": "x" * 100_000,
}

# Options whose values stand in the header.
HEADER_OPTIONS = (
    *("--job-name", "--partition", "--account", "--qos", "--constraint", "--time", "--mem", "--gpus-per-node"),
    *("--dependency", "--exclude", "--nodes", "--nproc", "--cpus-per-task", "--signal-before", "--max-parallel"),
)
HEADER_TEXTS = (
    "x\n#SBATCH --uid=0",
    "x y",
    "x --uid=0",
    "x;touch CANARY",
    "$(touch CANARY)",
    "`touch CANARY`",
    "'x'",
    '"x"',
    "x\\",
    "x#y",
    "é",
    "x\r",
    "",
    "٣",  # a digit of another script
    "1\n",
)
