"""The folders of the smallest vendor, as they are added to the project."""
