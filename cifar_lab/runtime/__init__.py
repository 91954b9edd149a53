"""Processes, devices and engines."""
