"""Chaos: real node processes under drawn faults, judged by the simulator's own checkers.

The simulator plays the cores in virtual time and sees everything. Here the whole processes run:
sockets, threads, libzmq, the kernel's network. What clients saw is written down in the same history
(`simulations.history`) and judged by the same checkers (`simulations.checkers`); what only an
all-seeing observer could know is not judged.

    plan      which faults, when: drawn from a seed, as the simulator's data
    namespaces, net, links    places with a network of their own, cuts and bad links between them
    cluster   node processes, and how each fault is done to them
    load      a client process: every call of both clients, its history in a file
    watch     a client process that tells since when all see all, and what is held in the end
    judging   the history of all clients, and what the checkers say
"""
