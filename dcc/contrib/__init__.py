"""Adapters: dcc as the cache of frameworks, each written on what the library shows to everybody.

`cache` and `async_cache` hold what every adapter needs and what a program without a framework may
want as well: values of any type, namespaces with a clear of their own, failing open, a circuit
breaker. An adapter imports its framework, so import the one that you need.
"""
