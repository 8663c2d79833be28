"""Targets from what a model comes as: one file each."""
