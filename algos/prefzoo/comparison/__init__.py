"""Recipe to plan, to runs, to evaluation, to statistics, to report."""
