"""What a reader sees: the page, its words, its pictures."""
