"""What is evaluated: videos, manifests, reference images."""
