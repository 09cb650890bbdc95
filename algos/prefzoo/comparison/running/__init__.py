"""How stages run: processes, order, interruptions, what is shown meanwhile."""
