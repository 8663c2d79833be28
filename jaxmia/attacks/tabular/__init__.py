"""Attacks that recover attributes of records."""
