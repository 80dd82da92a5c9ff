"""One linter per broker: what was read of its files in, findings out."""
