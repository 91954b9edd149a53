"""The packages; all else is in setup.cfg.

Folders beside the package go into the wheel as cifar_lab/_bundled, where cifar_lab/files/shipped.py finds them.
An editable install copies nothing: it reads the checkout.
"""

from setuptools import find_packages, setup

FOLDERS = ("accelerate_configs", "launch", "recipes", "slurm")

setup(packages=[*find_packages(include=["cifar_lab*"]), *(f"cifar_lab._bundled.{folder}" for folder in FOLDERS)])
