"""Side-by-side measurements on real networks."""
