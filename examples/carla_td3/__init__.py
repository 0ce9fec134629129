"""A TD3 driving agent whose gradients gradwatch watches: the reference workload of the project."""
