"""Documents and labelled rows of text to token numbers."""
