"""Recipes: schema, files, and checks that need no torch."""
