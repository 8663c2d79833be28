"""Attacks that recover images."""
