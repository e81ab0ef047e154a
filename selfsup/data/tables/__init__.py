"""Columns of tables to numbers and codes."""
