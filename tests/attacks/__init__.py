"""Attacks of one stranger, who needs no key: what each costs, and what it changes."""
