"""Policies behind an OpenAI-compatible server with a chat page, whose users' feedback is kept like labels."""
