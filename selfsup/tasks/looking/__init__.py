"""A look inside a trained encoder."""
