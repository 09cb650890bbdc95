"""A recipe: what it may say, how it is read, and every mistake in it."""
