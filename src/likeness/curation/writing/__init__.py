"""What is written at the end: encoded media, the choice of samples, tar shards and their manifests."""
