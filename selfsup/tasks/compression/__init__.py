"""Discrete codes behind an entropy coder."""
