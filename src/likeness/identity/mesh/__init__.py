"""Triangle meshes and networks over them."""
