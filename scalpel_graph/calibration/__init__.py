"""Measures a machine and fits the prices of its profile (`scalpel_graph.target`) to what was measured."""
