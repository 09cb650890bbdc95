"""People's feedback: the file that keeps it, what is shown next, the page that asks for it, and its export."""
