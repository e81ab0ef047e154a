"""Encoded pictures and arrays to uint8 pixels."""
