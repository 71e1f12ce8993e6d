"""Structured pruning. `pruner` is what others import, and where to begin reading.

In the order of the work:

    labels, factors, nodes, rule_table, rules/   how labels flow through one operator
    propagation, layouts, constraints           labels of the whole graph
    groups, counting, analysis                  what can be cut, and what that saves
    importance, budget, widths, choice          which widths and which channels go
    cut, surgery, call_arguments                what a cut leaves of weights and sizes
    masking, reference, proof, backward         is the pruned network right
    ladder/                                     ways to give it back, until one is right
    blocks, depth                               whole residual blocks left out
    plan_entries, plan_file, report, pruner     what was decided, what is said of it

Apart: `latency` (a budget in time), `sensitivity` (what each width is worth),
`sparsity` (zeros in place of smaller shapes).
"""
