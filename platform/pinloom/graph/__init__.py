"""From the tables of the lake to the edges and pairs of `components.graph`."""
