"""What studies have done for them: a cell trained, or a network scored, here or on a cluster, once and for all."""
