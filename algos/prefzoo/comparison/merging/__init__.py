"""Several runs in one table, and what is refused there: unequal trials and edited files."""
