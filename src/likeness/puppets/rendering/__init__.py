"""The software renderer: meshes, rasterizer, face painting, shading and ground-truth maps."""
