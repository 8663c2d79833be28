"""Attacks that recover graphs."""
