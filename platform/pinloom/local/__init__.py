"""What the demo and the tests start on one machine, and stop again."""
