"""Settings: variables, files, paths and values as people and platforms write them."""
