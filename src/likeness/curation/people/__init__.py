"""Who is seen: tracks of faces, identities over all sources, reference views, and pictures generated of a person."""
