"""Where bytes lie: folders, archives and shards, listed and read in place; knows no kind of data."""
