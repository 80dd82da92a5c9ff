"""Configurations of other people's brokers: the safe one printed, an existing one read for what is unsafe.

`installation` holds what differs between installations, checked; `rendering` fills one template per file
(``templates/``) with it, escaped for that file's syntax. The other way: a reader for each syntax (`hocon`,
`keyvalue`) keeps the lines, one linter per broker (``linters/``) turns what was read into `findings`, and `linting`
picks reader and linter by the broker's name. Every printed configuration passes its own linter.
"""
