"""Which channels of a network cannot matter, and how to do without them: exact node removal.

A *slot* is one index of one axis of a tensor: a channel, a feature, an attention head. The steps, each in a
file of its own:

1. `rule`: one rule per operator family says how slots pass through a node (`conv`, `gemm`, `elementwise`, …,
   collected in `registry`). A node without a rule keeps every slot it touches.
2. `analysis`: forward, the constant that a slot always holds, where it does (`constants`); slots that can
   only go together are one class (`slots`).
3. `liveness`: backward, which classes something needs. The others go.
4. `shrink`: the rules slice weights, fold constants into biases and adjust attributes.

Exact means: every output of the model stays what it was within rounding, for inputs for which no activation
overflows. (A channel multiplied by zero counts as zero; IEEE 754 would have an infinity times zero be NaN.)
"""
