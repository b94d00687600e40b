"""Networks that read a face image or an embedding."""
