"""From what was seen to the cause."""
