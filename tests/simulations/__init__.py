"""The tests of the simulator, and whole simulated runs."""
