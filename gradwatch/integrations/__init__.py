"""Thin adapters: one line in the code of who trains with another library. Each imports that library alone."""
