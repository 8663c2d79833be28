"""Attacks that recover text."""
