"""What a restore changes in an object: one module for each family of kinds. Pure."""
