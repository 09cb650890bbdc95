"""What follows from what a comparison measured: verdicts, budgets, warnings, what to know before believing them."""
