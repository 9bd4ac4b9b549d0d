"""The Scalpel paper (ISCA 2017) done again: its five networks trained, pruned for three targets, measured.

``python -m models reproduce`` runs it; `docs/paper.md` has the results. Training needs PyTorch
(``pip install scalpel-graph[torch]``).
"""
