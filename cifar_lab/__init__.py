"""cifar_lab: one Accelerate trainer for CIFAR-10 studies, fed by recipe YAMLs."""

__version__ = "0.1.0"
