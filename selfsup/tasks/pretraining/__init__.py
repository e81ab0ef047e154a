"""From unlabelled data to a run folder."""
