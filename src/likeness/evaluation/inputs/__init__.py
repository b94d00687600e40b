"""Videos, manifests and reference images that a user names."""
