"""The arithmetic of `cifar-lab plan`: memory, time and traffic from a model's footprint and a table of hardware."""
