"""What a backward pass runs through: operations, and what is known of them."""
