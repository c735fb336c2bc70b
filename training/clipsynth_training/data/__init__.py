"""Training data: the open corpus, folders of videos, shards."""
