"""Looking at a backward pass while it runs."""
