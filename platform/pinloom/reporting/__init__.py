"""Reports for people: one self-contained HTML file, its numbers the manifest's."""
