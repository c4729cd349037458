"""How well trained networks hold up when their images are changed."""
