"""Read models: their tables, folds and questions, and the runner that feeds them."""
