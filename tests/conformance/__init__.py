"""One table of cases, played on every broker: the same verdicts, or a difference that a page states.

table (cases made of steps) ─► player ─► column (a broker, at one protocol level) ─► observed against expected
      observed differs ─► differences (documented, with the page that says so) or a failure
columns: gates in front of real brokers, brokers that ask our hooks, and models of those that cannot be run here
"""
