"""Verdicts: rules that look at records and remember, and the episodes of what they find. No torch."""
