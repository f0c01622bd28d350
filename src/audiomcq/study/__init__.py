"""Runs of paradigms over seeds at equal budget: the plan, what was done of it, and the page about it."""
