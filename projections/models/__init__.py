"""One file per read model: its table, its two folds and its questions."""
